//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What stale if_error takes for an outage, where the handlers behind the cache are
// those of real sites.

// outageSites are a file server, and routes that fail once there is a file beside their
// path: what a request says would be part of its key.
const outageSites = `
	handle /files/* {
		groupcache {
			group files
			stale if_error 1h
		}
		handle {
			header Cache-Control max-age=60
			header Age 59
			root * %[1]s
			file_server
		}
	}
	handle /errors/* {
		groupcache {
			group errors
			stale if_error 1h
		}
		handle {
			map {path} {status} {
				~-([0-9]+)$ "${1}"
			}
			@down {
				file {
					root %[1]s
					try_files {path}.down
				}
			}
			error @down "as the file says" {status}
			@blocked header X-Blocked *
			error @blocked 403
			@gone {
				file {
					root %[1]s
					try_files {path}.gone
				}
			}
			reverse_proxy @gone %%[2]s
			reverse_proxy %%[1]s
		}
	}`

func startOutageSites(t *testing.T) (p *process, files string) {
	t.Helper()
	files = t.TempDir()
	for _, dir := range []string{"files", "errors"} {
		if err := os.Mkdir(filepath.Join(files, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Break") != "" {
			panic(http.ErrAbortHandler)
		}
		almostExpired(w, r)
	})
	return startSites(t, 1, o, fmt.Sprintf(outageSites, files))[0], filepath.Join(files, "files")
}

// TestDeletedFileIsGone: a 404 of the file server is an answer, not an outage.
func TestDeletedFileIsGone(t *testing.T) {
	p, files := startOutageSites(t)
	name := filepath.Join(files, "page.txt")
	if err := os.WriteFile(name, []byte("page"), 0o600); err != nil {
		t.Fatal(err)
	}
	if saw := p.sees("/files/page.txt"); saw != "page" {
		t.Fatalf("at first %s", saw)
	}
	awaitExpiry(t, time.Now())
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if saw := p.sees("/files/page.txt"); saw != "404" {
			t.Errorf("after the file was deleted: %s", saw)
		}
	}
}

// TestBlockedClientGetsNothingStored: nor is a 403 that the site itself answers with.
func TestBlockedClientGetsNothingStored(t *testing.T) {
	p, _ := startOutageSites(t)
	if saw := p.sees("/errors/page"); saw != "page" {
		t.Fatalf("at first %s", saw)
	}
	awaitExpiry(t, time.Now())
	if a := p.get("/errors/page", "X-Blocked", "yes"); a.status != http.StatusForbidden || a.body == "page" {
		t.Errorf("status %d, %q (%s)", a.status, a.body, a.cacheStatus())
	}
}

// TestStaleIfErrorCounts: 500, 502, 503 and 504, and an upstream that can't be reached
// or breaks off (RFC 5861 §4).
func TestStaleIfErrorCounts(t *testing.T) {
	type outage struct {
		what   string
		fields []string
		file   string // what is added to the path
		stands bool   // what is stored does
		status int    // otherwise
	}
	all := []outage{
		{"nobody listens", nil, ".gone", true, 0},
		{"the upstream breaks off", []string{"X-Break", "yes"}, "", true, 0},
	}
	for _, status := range []int{400, 401, 403, 404, 405, 410, 418, 421, 429, 451, 500, 501, 502, 503, 504, 505} {
		all = append(all, outage{fmt.Sprint("error ", status), nil, ".down", standsIn(status), status})
	}
	p, files := startOutageSites(t)
	path := func(i int) string { return fmt.Sprintf("/errors/%d-%d", i, all[i].status) }
	for i := range all {
		p.get(path(i)).is(t, "at first", "page")
	}
	awaitExpiry(t, time.Now())
	for i, o := range all {
		if o.file != "" {
			if err := os.WriteFile(filepath.Join(files, "..", path(i)+o.file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		switch a := p.get(path(i), o.fields...); {
		case o.stands:
			a.is(t, o.what, "page")
		case a.status != o.status || a.body == "page":
			t.Errorf("%s: status %d, %q (%s)", o.what, a.status, a.body, a.cacheStatus())
		}
	}
}
