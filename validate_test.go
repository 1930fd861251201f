package caddygroupcache

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

func TestRevalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls, notModified atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			time.Sleep(time.Second)
			if r.Header.Get("If-None-Match") == `"v1"` {
				notModified.Add(1)
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Etag", `"v1"`)
				w.WriteHeader(http.StatusNotModified)
				return nil
			}
			return fixed(&calls, "hello", "Cache-Control", "max-age=60", "Etag", `"v1"`)(w, r)
		}
		do(h, up, request(t.Context(), "/a"))
		time.Sleep(2 * time.Minute)
		wait := followers(20, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
		revalidated := 0
		for _, w := range wait() {
			if w.Code != 200 || w.Body.String() != "hello" {
				t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
			}
			if strings.Contains(w.Header().Get("Cache-Status"), "fwd=stale; fwd-status=304") {
				revalidated++
			}
		}
		if calls.Load() != 1 || notModified.Load() != 1 || revalidated != 1 {
			t.Errorf("%d fetches, %d validations, %d revalidated", calls.Load(), notModified.Load(), revalidated)
		}
		w := do(h, up, request(t.Context(), "/a", "If-None-Match", `"v1"`))
		wantStatus(t, w, "hit")
		if w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("conditional hit: %d %q", w.Code, w.Body)
		}
	})
}

func TestResponseThatIsNeverFreshIsValidatedForEachRequest(t *testing.T) {
	c := newCluster(t, 3)
	target := c.target(0)
	var calls, notModified atomic.Int64
	up := confirmed(&calls, &notModified, "max-age=0, must-revalidate", "max-age=0, must-revalidate")
	do(c.handlers[0], up, request(t.Context(), target))
	for i, h := range c.handlers {
		w := do(h, up, request(t.Context(), target))
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("node %d: %d %q", i, w.Code, w.Body)
		}
	}
	if calls.Load() != 1 || notModified.Load() != 3 {
		t.Errorf("%d fetches, %d validations", calls.Load(), notModified.Load())
	}
}

// TestLessVaryInA304: compression middleware names Accept-Encoding with a body only. Each
// request is one to the upstream all the same.
func TestLessVaryInA304(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls, notModified atomic.Int64
	up := func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("If-None-Match") == `W/"1"` {
			notModified.Add(1)
			w.Header().Set("Vary", "Origin")
			w.Header().Set("Etag", `W/"1"`)
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		return fixed(&calls, "hello", "Vary", "Origin, Accept-Encoding", "Etag", `W/"1"`)(w, r)
	}
	for range 3 {
		if w := do(h, up, request(t.Context(), "/a")); w.Code != http.StatusOK || w.Body.String() != "hello" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	}
	if calls.Load() != 1 || notModified.Load() != 2 {
		t.Errorf("%d fetches, %d validations", calls.Load(), notModified.Load())
	}
}

// TestFieldsOfA304ForItsClient: what is not stored of a 304, such as the cookie of a new session,
// goes to the client whose request it answers, and to no other.
func TestFieldsOfA304ForItsClient(t *testing.T) {
	for name, fields := range map[string][]string{
		"Set-Cookie": {"Set-Cookie", "session=WHO"}, "Clear-Site-Data": {"Clear-Site-Data", `"WHO"`}, "X-Token": {"X-Token", "WHO", "Cache-Control", `no-cache="X-Token"`},
	} {
		h := newHandler(t, newLoneNode(t), nil)
		var calls, notModified atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			who := r.Header.Get("X-New")
			for i := 0; i < len(fields) && who != ""; i += 2 {
				w.Header().Set(fields[i], strings.ReplaceAll(fields[i+1], "WHO", who))
			}
			return confirmed(&calls, &notModified, "no-cache", w.Header().Get("Cache-Control"))(w, r)
		}
		get := func(who ...string) string {
			w := do(h, up, request(t.Context(), "/a", who...))
			if w.Code != http.StatusOK || w.Body.String() != "hello" {
				t.Errorf("%s: %d %q", name, w.Code, w.Body)
			}
			return w.Header().Get(name)
		}
		get()
		for _, who := range []string{"1", "2"} {
			if got := get("X-New", who); got != strings.ReplaceAll(fields[1], "WHO", who) {
				t.Errorf("%s: client %s got %q", name, who, got)
			}
			if got := get(); got != "" {
				t.Errorf("%s: another client got %q", name, got)
			}
		}
		if calls.Load() != 1 || notModified.Load() != 4 {
			t.Errorf("%s: %d fetches, %d validations", name, calls.Load(), notModified.Load())
		}
	}
}

func TestClientThatWantsAValidatedAnswer(t *testing.T) {
	for _, directive := range []string{"no-cache", "max-age=0"} {
		c := newCluster(t, 2)
		target := c.target(0)
		var calls, notModified atomic.Int64
		up := confirmed(&calls, &notModified, "max-age=600", "max-age=600")
		do(c.handlers[0], up, request(t.Context(), target))
		w := do(c.handlers[0], up, request(t.Context(), target, "Cache-Control", directive))
		if w.Body.String() != "hello" || calls.Load() != 1 || notModified.Load() != 1 {
			t.Errorf("%s: %q after %d fetches, %d validations", directive, w.Body, calls.Load(), notModified.Load())
		}
		// The other node has nothing to validate, and stores what it fetches.
		if w := do(c.handlers[1], up, request(t.Context(), target, "Cache-Control", directive)); w.Body.String() != "hello" {
			t.Errorf("%s on the other node: %q", directive, w.Body)
		}
		wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "hit")
	}
}

func TestClientsPreconditionDoesNotMakeAURLUncacheable(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	w := do(h, func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}, request(t.Context(), "/a", "Cache-Control", "no-cache", "If-None-Match", `"x"`))
	if w.Code != http.StatusNotModified {
		t.Errorf("%d", w.Code)
	}
	r := request(t.Context(), "/a")
	k, _ := keyOf(h, r)
	if known := h.node.Store.Lookup(k, r.Header, time.Now()); known.Uncacheable != rfc9111.None {
		t.Errorf("uncacheable: %v", known.Uncacheable)
	}
	wantStatus(t, do(h, fixed(&calls, "hello", "Cache-Control", "max-age=60"), r), "stored")
}

func TestNoCacheIsValidatedWithTheOwnersEntry(t *testing.T) {
	c := newCluster(t, 2)
	target := c.target(0)
	var calls, notModified atomic.Int64
	up := func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("If-None-Match") == `"1"` {
			notModified.Add(1)
			w.Header().Set("Cache-Control", "max-age=600")
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		return fixed(&calls, "hello", "Cache-Control", "max-age=600", "Etag", `"1"`)(w, r)
	}
	do(c.handlers[0], up, request(t.Context(), target))
	w := do(c.handlers[1], up, request(t.Context(), target, "Cache-Control", "no-cache"))
	if w.Code != 200 || w.Body.String() != "hello" || calls.Load() != 1 || notModified.Load() != 1 {
		t.Errorf("%d %q after %d fetches, %d validations", w.Code, w.Body, calls.Load(), notModified.Load())
	}
}

// TestStaleIsValidatedWhereTheOwnerCallsItUncacheable: what the owner says of the
// URL does not make void what this node has of it.
func TestStaleIsValidatedWhereTheOwnerCallsItUncacheable(t *testing.T) {
	c := newCluster(t, 2)
	var calls, notModified atomic.Int64
	up := confirmed(&calls, &notModified, "max-age=0", "max-age=600")
	target := c.target(0)
	do(c.handlers[1], up, request(t.Context(), target))
	waitForCommit(t, c.nodes[0], 1)
	k, _ := keyOf(c.handlers[0], request(t.Context(), target))
	owner := c.nodes[0].Store
	owner.Drop(k, owner.Lookup(k, nil, time.Now()).Entry)
	owner.MarkUncacheable(owner.Namespace(c.handlers[0].Group), k, rfc9111.Private, time.Now().Add(time.Minute))
	if w := do(c.handlers[1], up, request(t.Context(), target)); w.Code != 200 || w.Body.String() != "hello" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if calls.Load() != 1 || notModified.Load() != 1 {
		t.Errorf("%d fetches, %d validations", calls.Load(), notModified.Load())
	}
}

func TestClusterRevalidatesOnce(t *testing.T) {
	c := newCluster(t, 3)
	var calls, notModified atomic.Int64
	up := confirmed(&calls, &notModified, "max-age=0", "max-age=600")
	target := c.target(0)
	do(c.handlers[1], up, request(t.Context(), target))
	waitForCommit(t, c.nodes[0], 1)
	for _, i := range []int{2, 1, 0} {
		w := do(c.handlers[i], up, request(t.Context(), target))
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("node %d: %d %q", i, w.Code, w.Body)
		}
	}
	if calls.Load() != 1 || notModified.Load() != 1 {
		t.Errorf("%d fetches, %d validations", calls.Load(), notModified.Load())
	}
}
