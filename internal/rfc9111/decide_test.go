package rfc9111

import (
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	// Fresh for 10 s, then 5 s in which it may be served while it is fetched anew.
	plain := Freshness{Lifetime: 10 * sec, StaleWhileRevalidate: 5 * sec, StaleIfError: 8 * sec}
	shared, noCache, must, immutable := plain, plain, plain, plain
	immutable.Immutable = true
	shared.SharedAuth = true
	noCache.NoCache = true
	must.MustRevalidate = true
	none := Freshness{Lifetime: 10 * sec}

	type req = RequestDirectives
	tests := []struct {
		name   string
		req    req
		auth   bool
		f      Freshness
		age    time.Duration
		use    Use
		reason Reason
	}{
		{"fresh", req{}, false, plain, 3 * sec, Fresh, None},
		{"fresh to the last", req{}, false, plain, 10*sec - 1, Fresh, None},
		{"stale as of its lifetime", req{}, false, none, 10 * sec, Validate, None},
		{"stale, while revalidate", req{}, false, plain, 10 * sec, StaleWhileRevalidate, None},
		{"stale, while revalidate to the last", req{}, false, plain, 15*sec - 1, StaleWhileRevalidate, None},
		{"stale, past while revalidate", req{}, false, plain, 15 * sec, Validate, None},
		{"fresh, must-revalidate", req{}, false, must, 3 * sec, Fresh, None},
		{"stale, must-revalidate", req{}, false, must, 11 * sec, Validate, None},
		{"stale, must-revalidate before max-stale", req{AnyStale: true}, false, must, 11 * sec, Validate, None},
		{"no-cache", req{}, false, noCache, 0, Validate, None},
		{"no-cache before max-stale", req{AnyStale: true}, false, noCache, 0, Validate, None},

		{"authorization", req{}, true, plain, 3 * sec, Validate, Authorization},
		{"authorization goes before no-cache", req{NoCache: true}, true, plain, 3 * sec, Validate, Authorization},
		{"authorization, shared", req{}, true, shared, 3 * sec, Fresh, None},
		{"no authorization, shared", req{}, false, shared, 3 * sec, Fresh, None},

		{"request no-cache", req{NoCache: true}, false, plain, 3 * sec, Validate, RequestNoCache},
		{"request no-store", req{NoStore: true}, false, plain, 3 * sec, Fresh, None},
		{"only-if-cached", req{OnlyIfCached: true}, false, plain, 3 * sec, Fresh, None},
		{"max-age reached", req{MaxAge: delta(3 * sec)}, false, plain, 3 * sec, Fresh, None},
		{"max-age exceeded", req{MaxAge: delta(3 * sec)}, false, plain, 3*sec + 1, Validate, RequestNoCache},
		{"max-age=0", req{MaxAge: delta(0)}, false, plain, 1, Validate, RequestNoCache},
		{"max-age allows, stale", req{MaxAge: delta(99 * sec)}, false, plain, 11 * sec, Validate, RequestNoCache},
		{"max-age and max-stale allow, stale", req{MaxAge: delta(99 * sec), AnyStale: true}, false, none, 11 * sec, Fresh, None},
		{"max-age exceeded, max-stale", req{MaxAge: delta(3 * sec), AnyStale: true}, false, plain, 4 * sec, Validate, RequestNoCache},
		{"max-age=0, immutable", req{MaxAge: delta(0)}, false, immutable, 9 * sec, Fresh, None},
		{"min-fresh missed, immutable", req{MinFresh: delta(4 * sec)}, false, immutable, 9 * sec, Fresh, None},
		{"no-cache, immutable", req{NoCache: true}, false, immutable, 3 * sec, Validate, RequestNoCache},
		{"max-age=0, immutable and stale as of now", req{MaxAge: delta(0)}, false, immutable, 10 * sec, Validate, RequestNoCache},
		{"min-fresh kept", req{MinFresh: delta(4 * sec)}, false, plain, 6 * sec, Fresh, None},
		{"min-fresh missed", req{MinFresh: delta(4 * sec)}, false, plain, 6*sec + 1, Validate, RequestNoCache},
		{"min-fresh, stale", req{MinFresh: delta(0)}, false, plain, 11 * sec, Validate, RequestNoCache},
		{"max-stale kept", req{MaxStale: delta(2 * sec)}, false, none, 12 * sec, Fresh, None},
		{"max-stale exceeded", req{MaxStale: delta(2 * sec)}, false, none, 12*sec + 1, Validate, RequestNoCache},
		{"max-stale exceeded, while revalidate", req{MaxStale: delta(2 * sec)}, false, plain, 13 * sec, Validate, RequestNoCache},
		{"max-stale kept, while revalidate", req{MaxStale: delta(2 * sec)}, false, plain, 11 * sec, StaleWhileRevalidate, None},
		{"max-stale, fresh", req{MaxStale: delta(0)}, false, plain, 3 * sec, Fresh, None},
		{"any stale", req{AnyStale: true}, false, none, 999 * sec, Fresh, None},
		{"any stale, while revalidate", req{AnyStale: true}, false, plain, 11 * sec, StaleWhileRevalidate, None},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Received = noon
			use, reason := Decide(&tt.req, tt.auth, &tt.f, noon.Add(tt.age))
			if use != tt.use || reason != tt.reason {
				t.Errorf("got %d %q, want %d %q", use, reason, tt.use, tt.reason)
			}
		})
	}
}

func TestServeStaleOnError(t *testing.T) {
	plain := Freshness{Lifetime: 10 * sec, StaleIfError: 5 * sec}
	must, noCache := plain, plain
	must.MustRevalidate = true
	noCache.NoCache = true

	type req = RequestDirectives
	tests := []struct {
		name string
		req  req
		f    Freshness
		age  time.Duration
		want bool
	}{
		{"fresh", req{}, plain, 3 * sec, true},
		{"fresh, with no allowance", req{}, Freshness{Lifetime: 10 * sec}, 3 * sec, true},
		{"fresh, request max-age=0", req{MaxAge: delta(0)}, plain, 3 * sec, true},
		{"stale", req{}, plain, 10 * sec, true},
		{"stale to the last", req{}, plain, 15*sec - 1, true},
		{"past the window", req{}, plain, 15 * sec, false},
		{"stale, with no allowance", req{}, Freshness{Lifetime: 10 * sec}, 10 * sec, false},
		{"the request's window is wider", req{StaleIfError: delta(9 * sec)}, plain, 18 * sec, true},
		{"past the request's wider window", req{StaleIfError: delta(9 * sec)}, plain, 19 * sec, false},
		{"the request's window is narrower", req{StaleIfError: delta(2 * sec)}, plain, 13 * sec, false},
		{"fresh, must-revalidate", req{}, must, 3 * sec, true},
		{"stale, must-revalidate", req{}, must, 11 * sec, false},
		{"stale, must-revalidate before the request", req{StaleIfError: delta(9 * sec)}, must, 11 * sec, false},
		{"no-cache", req{}, noCache, 3 * sec, false},
		{"request no-cache", req{NoCache: true}, plain, 3 * sec, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Received = noon
			if got := ServeStaleOnError(tt.req, tt.f, noon.Add(tt.age)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	f := Freshness{Received: noon, Lifetime: 10 * sec, StaleWhileRevalidate: 5 * sec}
	now := noon.Add(11 * sec)
	b.ReportAllocs()
	for b.Loop() {
		Decide(new(RequestDirectives), false, &f, now)
	}
}
