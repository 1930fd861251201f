//go:build unix

package caddygroupcache_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestAttackAdmin: web pages that the operator visits cannot purge (CSRF, DNS
// rebinding), and a purge in a form that is none purges nothing.
func TestAttackAdmin(t *testing.T) {
	c, _ := startAttacked(t, 1, echoing, "")
	p := c[0]
	purge := func(body string, fields ...string) (int, error) {
		r, err := http.NewRequest(http.MethodPost, "http://"+p.admin+"/groupcache/purge", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fields); i += 2 {
			if r.Header.Set(fields[i], fields[i+1]); fields[i] == "Host" {
				r.Host = fields[i+1]
			}
		}
		resp, err := adminClient.Do(r)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	page := p.get("/page").body
	for name, a := range map[string][]string{
		"a page of another site":            {`{"all":true}`, "Origin", "http://" + poison, "Content-Type", "text/plain"},
		"a form of another site":            {`{"all":true,"x":"=`, "Origin", "http://" + poison, "Content-Type", "text/plain"},
		"a page without an origin":          {`{"all":true}`, "Origin", "null"},
		"DNS rebinding":                     {`{"all":true}`, "Host", poison},
		"DNS rebinding with the right port": {`{"all":true}`, "Host", poison + p.admin[strings.LastIndexByte(p.admin, ':'):]},
		"no-cors":                           {`{"all":true}`, "Sec-Fetch-Mode", "no-cors"},
		"a navigation":                      {`{"all":true}`, "Sec-Fetch-Mode", "navigate", "Origin", "https://" + poison},
		"two objects":                       {`{"all":false}{"all":true}`},
		"an unknown field":                  {`{"all":true,"force":true}`},
		"no JSON":                           {"all=true", "Content-Type", "application/x-www-form-urlencoded"},
		"deep JSON":                         {strings.Repeat("[", 1<<20)},
		"large JSON":                        {`{"urls":["` + strings.Repeat("a", 16<<20) + `"]}`},
		"nothing":                           {""},
	} {
		status, err := purge(a[0], a[1:]...)
		if err == nil && status/100 != 4 {
			t.Errorf("%s: %d", name, status)
		}
		if got := p.get("/page"); !got.hit() {
			t.Errorf("%s: purged (%s)", name, got.cacheStatus())
		}
	}
	if resp, err := adminClient.Get("http://" + p.admin + "/groupcache/purge?all=true"); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("by GET: %v, %v", resp, err)
	}
	p.get("/page").is(t, "the page", page)
	if status, err := purge(`{"all":true}`); status != http.StatusOK {
		t.Errorf("the operator's own: %d, %v", status, err)
	}
	if got := p.get("/page"); got.hit() {
		t.Error("not purged")
	}
	// The site port has no such route.
	r := p.request(http.MethodPost, "/groupcache/purge", strings.NewReader(`{"all":true}`))
	p.get("/page")
	if do(r); !p.get("/page").hit() {
		t.Error("purged through the site")
	}
}
