//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() { caddy.RegisterModule(new(eventFile)) }

// An eventFile is an event handler that appends events to a file.
type eventFile struct {
	File string `json:"file"`
}

func (*eventFile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.groupcache_test_file", New: func() caddy.Module { return new(eventFile) }}
}

func (h *eventFile) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.Args(&h.File)
	return nil
}

func (h *eventFile) Handle(_ context.Context, e caddy.Event) error {
	if e.Origin() == nil {
		return nil // of Caddy itself
	}
	f, err := os.OpenFile(h.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewEncoder(f).Encode(loggedEvent{e.Name(), string(e.Origin().CaddyModule().ID), e.Data})
}

type loggedEvent struct {
	Name, Origin string
	Data         map[string]any
}

// jsonLines decodes the lines of a file, as far as they are JSON.
func jsonLines[T any](t *testing.T, name string) (all []T) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var one T
		if json.Unmarshal(s.Bytes(), &one) == nil {
			all = append(all, one)
		}
	}
	return all
}

// withGlobal is the node's Caddyfile with another global option.
func (p *process) withGlobal(option string) string {
	return strings.Replace(p.caddyfile(""), "\tauto_https off\n", "\tauto_https off\n"+option+"\n", 1)
}

func TestEvents(t *testing.T) {
	o := startOrigin(t, cached)
	c := newCluster(t, 3, o, "peer_timeout 200ms")
	watcher, silent, leaver := c[0], c[1], c[2]
	file := filepath.Join(t.TempDir(), "events")
	watcher.start()
	if code, answer := watcher.load(watcher.withGlobal(fmt.Sprintf("\tevents {\n\t\ton * groupcache_test_file %s\n\t}", file))); code != 200 {
		t.Fatal(answer)
	}
	// awaitEvent waits for an event of ours in which a field has a value.
	awaitEvent := func(name, field string, value any) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s of %v is emitted", name, value), func() bool {
			for _, e := range jsonLines[loggedEvent](t, file) {
				if e.Name == name && e.Origin == "groupcache" && fmt.Sprint(e.Data[field]) == fmt.Sprint(value) {
					return true
				}
			}
			return false
		})
	}
	silent.start()
	awaitEvent("member_joined", "member", silent.name)
	leaver.start()
	awaitEvent("member_joined", "member", leaver.name)
	c.awaitMembers()

	// Also on nodes that were not asked.
	code, result := leaver.purge(`{"tags": ["news"], "urls": ["http://a.test/b"], "soft": true}`)
	if code != 200 {
		t.Fatalf("%d %+v", code, result)
	}
	awaitEvent("purged", "id", result.ID)
	awaitEvent("purged", "tags", []any{"news"})
	awaitEvent("purged", "urls", []any{"http://a.test/b"})

	leaver.signal(syscall.SIGTERM)
	leaver.awaitEnd()
	awaitEvent("member_left", "member", leaver.name)

	silent.signal(syscall.SIGSTOP)
	for i := 0; len(degraded(t, file)) == 0 && i < 1000; i++ { // one that it owns is soon among them
		watcher.get(fmt.Sprintf("/%d", i))
	}
	awaitEvent("peer_degraded", "member", silent.name)
	silent.signal(syscall.SIGCONT)
	eventually(t, "it recovers", func() bool {
		watcher.get(fmt.Sprintf("/again/%d", len(jsonLines[loggedEvent](t, file))*1000+o.fetches("")))
		return len(degraded(t, file)) == 0
	})
	awaitEvent("peer_recovered", "member", silent.name)
	silent.kill()
	awaitEvent("member_died", "member", silent.name)
}

// degraded are the members that are degraded by what was emitted.
func degraded(t *testing.T, file string) map[any]bool {
	t.Helper()
	now := make(map[any]bool)
	for _, e := range jsonLines[loggedEvent](t, file) {
		switch e.Name {
		case "peer_degraded":
			now[e.Data["member"]] = true
		case "peer_recovered":
			delete(now, e.Data["member"])
		}
	}
	return now
}

// A logLine is a line of Caddy's log.
type logLine map[string]any

// ours are the lines of the app and the handler.
func ours(t *testing.T, file string) (all []logLine) {
	t.Helper()
	for _, line := range jsonLines[logLine](t, file) {
		if name, _ := line["logger"].(string); strings.HasPrefix(name, "groupcache") || strings.HasPrefix(name, "http.handlers.groupcache") {
			all = append(all, line)
		}
	}
	return all
}

// TestLogFollowsTheRunningConfig: membership and purges outlive a reload, and
// are logged where the new config says.
func TestLogFollowsTheRunningConfig(t *testing.T) {
	o := startOrigin(t, cached)
	c := newCluster(t, 2, o, patient)
	dir := t.TempDir()
	logTo := func(name, level string) string {
		return fmt.Sprintf("\tlog {\n\t\toutput file %s\n\t\tlevel %s\n\t}", filepath.Join(dir, name), level)
	}
	c[0].start()
	for _, name := range []string{"first", "second"} {
		if code, answer := c[0].load(c[0].withGlobal(logTo(name, "INFO"))); code != 200 {
			t.Fatal(answer)
		}
	}
	about := func(file, field string, value any) bool {
		for _, line := range ours(t, filepath.Join(dir, file)) {
			if line[field] == value {
				return true
			}
		}
		return false
	}
	c[1].start()
	eventually(t, "the second log tells of the second member", func() bool { return about("second", "member", c[1].name) })
	if about("first", "member", c[1].name) {
		t.Error("so does the log of the config before")
	}
	c.awaitMembers()

	// Nothing that says who asked for what, above debug.
	const path, tag = "/a-certain-path", "a-certain-tag"
	c[0].get(path).is(t, "the first", "body")
	_, result := c[1].purge(`{"tags": ["` + tag + `"], "urls": ["http://` + clientHost + path + `"]}`)
	eventually(t, "the second log tells of the purge", func() bool { return about("second", "id", result.ID) })
	e := c[0].explain(path)
	for _, line := range ours(t, filepath.Join(dir, "second")) {
		text, _ := json.Marshal(line)
		for _, secret := range []string{path, tag, clientHost, e.Groups[0].Hash} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s is in the log: %s", secret, text)
			}
		}
	}

	if code, answer := c[0].load(c[0].withGlobal(logTo("third", "DEBUG"))); code != 200 {
		t.Fatal(answer)
	}
	c[0].get(path).is(t, "once more", "body")
	eventually(t, "the third log tells what became of a request", func() bool {
		for _, line := range ours(t, filepath.Join(dir, "third")) {
			if line["key"] == e.Groups[0].Hash && line["level"] == "debug" && line["status"] != "" && line["group"] == "default" {
				return true
			}
		}
		return false
	})
}
