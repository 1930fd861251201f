package rfc9111

import (
	"testing"
	"time"
)

func TestReuseOfStored(t *testing.T) {
	// Fresh for 10 s, then 5 s in which it may be served while it is fetched anew.
	plain := Freshness{Lifetime: 10 * sec, StaleWhileRevalidate: 5 * sec, StaleIfError: 8 * sec}
	shared, noCache, must, immutable := plain, plain, plain, plain
	immutable.Immutable = true
	shared.SharedAuth = true
	noCache.NoCache = true
	none := Freshness{Lifetime: 10 * sec}
	must = none
	must.MustRevalidate = true

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
		{"never fresh", req{}, false, Freshness{}, 0, Validate, None},
		{"never fresh, any stale", req{AnyStale: true}, false, Freshness{}, 0, Validate, None},
		{"never fresh, max-stale", req{MaxStale: delta(99 * sec)}, false, Freshness{}, 0, Validate, RequestNoCache},
		{"never fresh, but while revalidate", req{}, false, Freshness{StaleWhileRevalidate: sec}, 0, StaleWhileRevalidate, None},
		{"any stale, while revalidate", req{AnyStale: true}, false, plain, 11 * sec, StaleWhileRevalidate, None},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Received = noon
			use, reason := Reuse(&Request{tt.req, tt.auth}, &tt.f, Stored, noon.Add(tt.age))
			if use != tt.use || reason != tt.reason {
				t.Errorf("got %d %q, want %d %q", use, reason, tt.use, tt.reason)
			}
		})
	}
}

// With s-maxage, a stale directive counts as far as it goes, and no client's wish
// beyond it.
func TestReuseOfStoredBesideSMaxage(t *testing.T) {
	f := Freshness{Received: noon, Lifetime: 10 * sec, StaleWhileRevalidate: 5 * sec, MustRevalidate: true}
	type req = RequestDirectives
	for _, tt := range []struct {
		name   string
		req    req
		age    time.Duration
		use    Use
		reason Reason
	}{
		{"while revalidate", req{}, 15*sec - 1, StaleWhileRevalidate, None},
		{"past that", req{}, 15 * sec, Validate, None},
		{"past that, any stale", req{AnyStale: true}, 15 * sec, Validate, None},
		{"past that, max-stale kept", req{MaxStale: delta(99 * sec)}, 15 * sec, Validate, None},
		{"within that, any stale", req{AnyStale: true}, 14 * sec, StaleWhileRevalidate, None},
		{"within that, max-stale exceeded", req{MaxStale: delta(2 * sec)}, 13 * sec, Validate, RequestNoCache},
		{"within that, max-age", req{MaxAge: delta(99 * sec)}, 13 * sec, Validate, RequestNoCache},
	} {
		use, reason := Reuse(&Request{Directives: tt.req}, &f, Stored, noon.Add(tt.age))
		if use != tt.use || reason != tt.reason {
			t.Errorf("%s: got %d %q, want %d %q", tt.name, use, reason, tt.use, tt.reason)
		}
	}
}

// What arrives for another request is for who could reuse it without validation.
func TestReuseOfCollapsed(t *testing.T) {
	for _, tt := range []struct {
		name string
		req  Request
		f    Freshness
		want Use
	}{
		{"fresh", Request{}, Freshness{Lifetime: 10 * sec}, Fresh},
		{"fresh, credentials", Request{Credentials: true}, Freshness{Lifetime: 10 * sec}, Validate},
		{"no-cache", Request{}, Freshness{Lifetime: 10 * sec, NoCache: true}, Validate},
		{"no lifetime", Request{}, Freshness{}, Validate},
		{"no lifetime, for errors", Request{}, Freshness{StaleIfError: 9 * sec}, Validate},
		{"no lifetime, any stale", Request{Directives: RequestDirectives{AnyStale: true}}, Freshness{}, Validate},
		{"no lifetime, while revalidate", Request{}, Freshness{StaleWhileRevalidate: sec}, StaleWhileRevalidate},
		{"slower than its lifetime", Request{}, Freshness{Lifetime: sec, InitialAge: 2 * sec}, Fresh},
		{"slower than its lifetime, and older", Request{}, Freshness{Lifetime: sec, InitialAge: 3 * sec}, Validate},
		{"the client wants no age", Request{Directives: RequestDirectives{MaxAge: delta(0)}}, Freshness{Lifetime: 9 * sec, InitialAge: 3 * sec}, Validate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Received = noon
			tt.f.Delay = min(2*sec, tt.f.InitialAge)
			f := tt.f.AsAnswered()
			if use, _ := Reuse(&tt.req, &f, Collapsed, noon); use != tt.want {
				t.Errorf("got %d, want %d", use, tt.want)
			}
		})
	}
}

func TestAlwaysValidated(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    Freshness
		want bool
	}{
		{"no lifetime", Freshness{}, true},
		{"no lifetime, for errors", Freshness{StaleIfError: sec}, true},
		{"no lifetime, while revalidate", Freshness{StaleWhileRevalidate: sec}, false},
		{"lifetime", Freshness{Lifetime: sec}, false},
		{"no-cache", Freshness{Lifetime: sec, NoCache: true}, true},
		{"slower than its lifetime", Freshness{Lifetime: sec, InitialAge: 2 * sec}, false},
		{"older than its lifetime", Freshness{Lifetime: 5 * sec, InitialAge: 7 * sec, MustRevalidate: true}, true},
		{"older than its lifetime, while revalidate", Freshness{Lifetime: 5 * sec, InitialAge: 7 * sec, StaleWhileRevalidate: sec, MustRevalidate: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Received, tt.f.Delay = noon, min(2*sec, tt.f.InitialAge)
			if got := tt.f.AlwaysValidated(); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestReuseInOutage(t *testing.T) {
	plain := Freshness{Lifetime: 10 * sec, StaleIfError: 5 * sec}
	must, limited, noCache := Freshness{Lifetime: 10 * sec}, plain, plain
	must.MustRevalidate, limited.MustRevalidate = true, true
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
		{"stale, s-maxage beside if error", req{}, limited, 15*sec - 1, true},
		{"past that", req{}, limited, 15 * sec, false},
		{"past that, within the request's window", req{StaleIfError: delta(9 * sec)}, limited, 15 * sec, false},
		{"within that, past the request's window", req{StaleIfError: delta(2 * sec)}, limited, 13 * sec, false},
		{"no-cache", req{}, noCache, 3 * sec, false},
		{"never fresh", req{}, Freshness{}, 0, false},
		{"never fresh, whatever the request says", req{StaleIfError: delta(9 * sec)}, Freshness{}, 0, false},
		{"never fresh, but allowed", req{StaleIfError: delta(9 * sec)}, Freshness{StaleIfError: 2 * sec}, sec, true},
		{"request no-cache", req{NoCache: true}, plain, 3 * sec, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Received = noon
			use, _ := Reuse(&Request{Directives: tt.req}, &tt.f, Outage, noon.Add(tt.age))
			if got := use != Validate; got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func BenchmarkReuse(b *testing.B) {
	f := Freshness{Received: noon, Lifetime: 10 * sec, StaleWhileRevalidate: 5 * sec}
	now := noon.Add(11 * sec)
	b.ReportAllocs()
	for b.Loop() {
		Reuse(new(Request), &f, Stored, now)
	}
}
