//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// cacheable answers every path with a body that names it, after a while.
func cacheable(after time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(after)
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "body of %s", r.URL.Path)
	}
}

func TestEveryNodeServesWhatOneFetched(t *testing.T) {
	const keys, delay = 12, 400 * time.Millisecond
	o := startOrigin(t, cacheable(delay))
	c := startCluster(t, 3, o, "")
	path := func(i int) string { return fmt.Sprintf("/key/%d", i) }

	first := together(keys, keys, func(i int) answer { return c[i%3].get(path(i)) })
	for i, a := range first {
		a.is(t, "first "+path(i), "body of "+path(i))
		if a.took < delay || a.hit() {
			t.Errorf("first %s: %s after %v", path(i), a.cacheStatus(), a.took)
		}
	}
	var later []time.Duration
	details := make(map[string]int)
	for range 5 {
		for i := range keys {
			for _, p := range c {
				a := p.get(path(i))
				a.is(t, p.name+path(i), "body of "+path(i))
				if !a.hit() || a.header.Get("Age") == "" {
					t.Errorf("%s%s: %s, Age %q", p.name, path(i), a.cacheStatus(), a.header.Get("Age"))
				}
				later = append(later, a.took)
				details[a.cacheStatus()[len("groupcache; hit; ttl=60; "):]]++
			}
		}
	}
	t.Logf("median of later requests: %v (wanted < 5ms); %v", median(later), details)
	if m := median(later); m > 100*time.Millisecond {
		t.Errorf("median of later requests: %v", m)
	}
	if n := o.fetches(""); n != keys {
		t.Errorf("%d fetches for %d keys", n, keys)
	}
}

func TestConcurrentClientsOfColdKeysShareFetches(t *testing.T) {
	const keys, clients = 6, 600
	o := startOrigin(t, cacheable(400*time.Millisecond))
	c := startCluster(t, 3, o, "")
	path := func(i int) string { return fmt.Sprintf("/cold/%d", i%keys) }

	answers := together(clients, clients, func(i int) answer { return c[i/keys%3].get(path(i)) })
	var slowest time.Duration
	for i, a := range answers {
		a.is(t, path(i), "body of "+path(i))
		slowest = max(slowest, a.took)
	}
	t.Logf("%d answers from %d fetches, the slowest after %v", clients, o.fetches(""), slowest)
	if n := o.fetches(""); n != keys {
		t.Errorf("%d fetches for %d keys", n, keys)
	}
}

func TestNobodyGetsSomebodyElsesAnswer(t *testing.T) {
	const clients = 90
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		who := r.Header.Get("Cookie")
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Cache-Control", "private, max-age=60")
		case "/no-store":
			w.Header().Set("Cache-Control", "no-store")
		case "/set-cookie":
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Set-Cookie", "seen="+who)
		}
		fmt.Fprintf(w, "account of %s", who)
	})
	c := startCluster(t, 3, o, "")
	for _, path := range []string{"/private", "/no-store", "/set-cookie"} {
		answers := together(clients, clients, func(i int) answer {
			return c[i%3].get(path, "Cookie", fmt.Sprintf("user=%d", i))
		})
		var slowest time.Duration
		for i, a := range answers {
			who := fmt.Sprintf("user=%d", i)
			a.is(t, path+" for "+who, "account of "+who)
			if s := a.header.Get("Set-Cookie"); s != "" && s != "seen="+who {
				t.Errorf("%s for %s: Set-Cookie: %s", path, who, s)
			}
			slowest = max(slowest, a.took)
		}
		t.Logf("%s: the slowest of %d after %v", path, clients, slowest)
		if n := o.fetches(path); n != clients {
			t.Errorf("%s: %d fetches for %d clients", path, n, clients)
		}
	}
}
