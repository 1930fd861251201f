package rfc9111

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

// with returns the exchange with a request header.
func (x Exchange) with(request ...string) Exchange {
	x.Request = header(request...)
	return x
}

const cc = "Cache-Control"

// withRaw returns an exchange whose response has a field under a name as it stands.
func withRaw(name, value string) Exchange {
	x := exchange(200, cc, "max-age=5")
	x.Response[name] = []string{value}
	return x
}

func withMethod(m string) Exchange {
	x := exchange(200, cc, "max-age=5")
	x.Method = m
	return x
}

type storableTest struct {
	name string
	x    Exchange
	o    Options
	want Reason
}

var storableByRequest = []storableTest{
	{"plain", exchange(200, cc, "max-age=5"), Options{}, None},
	{"HEAD", withMethod("HEAD"), Options{}, Method},
	{"POST", withMethod("POST"), Options{}, Method},
	{"lower case get is another method", withMethod("get"), Options{}, Method},

	{"request no-store", exchange(200, cc, "max-age=5").with(cc, "no-store"), Options{}, RequestNoStore},
	{"request no-store ignored", exchange(200, cc, "max-age=5").with(cc, "no-store"), Options{IgnoreRequestDirectives: true}, None},
	{"request no-cache may be stored", exchange(200, cc, "max-age=5").with(cc, "no-cache"), Options{}, None},
	{"authorization", exchange(200, cc, "max-age=5").with("Authorization", "x"), Options{}, Authorization},
	{"empty authorization", exchange(200, cc, "max-age=5").with("Authorization", ""), Options{}, Authorization},
	{"authorization, public", exchange(200, cc, "max-age=5, public").with("Authorization", "x"), Options{}, None},
	{"authorization, s-maxage", exchange(200, cc, "s-maxage=5").with("Authorization", "x"), Options{}, None},
	{"authorization, broken s-maxage", exchange(200, cc, "s-maxage=x", "Etag", `"a"`).with("Authorization", "x"), Options{}, Authorization},
	{"authorization, must-revalidate", exchange(200, cc, "max-age=5, must-revalidate").with("Authorization", "x"), Options{}, None},
	{"authorization, proxy-revalidate", exchange(200, cc, "max-age=5, proxy-revalidate").with("Authorization", "x"), Options{}, Authorization},
	{"authorization ignored", exchange(200, cc, "max-age=5").with("Authorization", "x"), Options{IgnoreAuthorization: true}, None},
	{"authorization ignored, private", exchange(200, cc, "private").with("Authorization", "x"), Options{IgnoreAuthorization: true}, Private},
	{"authorization goes before private", exchange(200, cc, "private").with("Authorization", "x"), Options{}, Authorization},
}

var storableByResponse = []storableTest{
	{"no-store", exchange(200, cc, "max-age=5, no-store"), Options{}, NoStore},
	{"no-store in the second line", exchange(200, cc, "max-age=5", cc, "x, No-Store"), Options{}, NoStore},
	{"no-store under a name in lower case", withRaw("cache-control", "no-store"), Options{}, NoStore},
	{"must-understand", exchange(200, cc, "max-age=5, no-store, must-understand"), Options{}, None},
	{"must-understand, 302", exchange(302, cc, "max-age=5, must-understand, no-store"), Options{}, None},
	{"must-understand, unknown status", exchange(299, cc, "max-age=5, no-store, must-understand"), Options{}, Status},
	{"must-understand without no-store", exchange(299, cc, "max-age=5, must-understand"), Options{}, Status},
	{"must-understand, 500", exchange(500, cc, "max-age=5, must-understand"), Options{}, Status},
	{"private", exchange(200, cc, "max-age=5, private"), Options{}, Private},
	{"private beside must-understand", exchange(200, cc, "max-age=5, must-understand, no-store, private"), Options{}, Private},
	{"private field", exchange(200, cc, `max-age=5, private="x-user"`), Options{}, None},
	{"cookie", exchange(200, cc, "max-age=5", "Set-Cookie", "a=b"), Options{}, SetCookie},
	{"cookie on a public response", exchange(200, cc, "max-age=5, public", "Set-Cookie", "a=b"), Options{}, SetCookie},
	{"cookie that is private", exchange(200, cc, `max-age=5, private="set-cookie"`, "Set-Cookie", "a=b"), Options{}, None},
	{"cookie not to be reused", exchange(200, cc, `max-age=5, no-cache="Set-Cookie, X"`, "Set-Cookie", "a=b"), Options{}, None},
	{"cookie beside another private field", exchange(200, cc, `max-age=5, private="x"`, "Set-Cookie", "a=b"), Options{}, SetCookie},
	{"cookie beside another field not to be reused", exchange(200, cc, `max-age=5, no-cache="x"`, "Set-Cookie", "a=b"), Options{}, SetCookie},
	{"cookie, and the options allow it", exchange(200, cc, "max-age=5", "Set-Cookie", "a=b"), Options{StoreSetCookie: true}, None},
	{"private with a cookie, and the options allow that", exchange(200, cc, "private", "Set-Cookie", "a=b"), Options{StoreSetCookie: true}, Private},
	{"clear-site-data", exchange(200, cc, "max-age=5, public", "Clear-Site-Data", `"cookies"`), Options{}, ClearSiteData},
	{"clear-site-data that is private", exchange(200, cc, `max-age=5, private="clear-site-data"`, "Clear-Site-Data", `"cookies"`), Options{}, None},
	{"clear-site-data beside a private cookie", exchange(200, cc, `max-age=5, private="set-cookie"`, "Clear-Site-Data", `"*"`, "Set-Cookie", "a=b"), Options{}, ClearSiteData},
	{"clear-site-data, and the options allow it", exchange(200, cc, "max-age=5", "Clear-Site-Data", `"cookies"`), Options{StoreSetCookie: true}, None},
	{"clear-site-data, quoted in its second line", exchange(200, cc, "max-age=5", "Clear-Site-Data", "x", "Clear-Site-Data", `y, "cookies"`), Options{}, ClearSiteData},
	{"clear-site-data without quotes, which clears nothing", exchange(200, cc, "max-age=5", "Clear-Site-Data", "cookies"), Options{}, None},
	{"clear-site-data in lower case", withRaw("clear-site-data", `"cookies"`), Options{}, ClearSiteData},
	{"cookie in lower case", withRaw("set-cookie", "a=b"), Options{}, SetCookie},
	{"vary", exchange(200, cc, "max-age=5", "Vary", "Accept"), Options{}, None},
	{"vary star", exchange(200, cc, "max-age=5", "Vary", "*"), Options{}, VaryStar},
	{"vary star, last of two lines", exchange(200, cc, "max-age=5", "Vary", "Accept", "Vary", "X , *"), Options{}, VaryStar},
	{"event stream", exchange(200, cc, "max-age=5", "Content-Type", "text/event-stream"), Options{}, EventStream},
	{"event stream with parameter", exchange(200, cc, "max-age=5", "Content-Type", "Text/Event-Stream ; charset=utf-8"), Options{}, EventStream},
	{"html", exchange(200, cc, "max-age=5", "Content-Type", "text/html"), Options{}, None},
}

var storableByStatus = []storableTest{
	{"100", exchange(100, cc, "max-age=5"), Options{}, Status},
	{"101", exchange(101, cc, "max-age=5"), Options{}, Status},
	{"199", exchange(199, cc, "max-age=5"), Options{}, Status},
	{"0", exchange(0, cc, "max-age=5"), Options{}, Status},
	{"600", exchange(600, cc, "max-age=5"), Options{}, Status},
	{"206", exchange(206, cc, "max-age=5"), Options{}, Partial},
	{"304", exchange(304, cc, "max-age=5"), Options{}, Status},
	{"401", exchange(401, cc, "max-age=5, public"), Options{}, RequestStatus},
	{"412", exchange(412, cc, "max-age=5"), Options{}, RequestStatus},
	{"416", exchange(416, cc, "max-age=5"), Options{}, RequestStatus},
	{"428", exchange(428, cc, "max-age=5, public"), Options{}, RequestStatus},
	{"428 with its ttl", exchange(428, cc, "max-age=5"), Options{TTL: map[int]time.Duration{428: sec}}, RequestStatus},
	{"511", exchange(511, cc, "max-age=5, public"), Options{}, RequestStatus},
	{"511 with its ttl", exchange(511), Options{TTL: map[int]time.Duration{511: sec}}, RequestStatus},
	{"431", exchange(431, cc, "max-age=5"), Options{}, RequestStatus},
	{"599 with a lifetime", exchange(599, cc, "max-age=5"), Options{}, None},
	{"299 with a lifetime", exchange(299, "Expires", date(noon.Add(sec))), Options{}, None},
	{"400 with a lifetime", exchange(400, cc, "max-age=5"), Options{}, RequestStatus},
	{"500 with a lifetime", exchange(500, cc, "max-age=5"), Options{}, None},
	{"503 with no lifetime", exchange(503, "Etag", `"a"`), Options{}, NoFreshness},
	{"503 with a ttl for any", exchange(503, "Etag", `"a"`), Options{TTL: map[int]time.Duration{0: sec}}, NoFreshness},
	{"503 with its ttl", exchange(503), Options{TTL: map[int]time.Duration{503: sec}}, None},
	{"302 with no lifetime", exchange(302, "Etag", `"a"`), Options{}, NoFreshness},
	{"302 with last-modified", exchange(302, "Last-Modified", date(noon.Add(-time.Hour))), Options{}, NoFreshness},
	{"299 with no lifetime", exchange(299, "Etag", `"a"`), Options{}, NoFreshness},
}

var storableByFreshness = []storableTest{
	{"nothing stated", exchange(200), Options{}, NoFreshness},
	{"nothing stated, stale allowed", exchange(200), Options{StaleIfError: sec, StaleWhileRevalidate: sec}, NoFreshness},
	{"nothing stated, ttl", exchange(200), Options{TTL: map[int]time.Duration{0: sec}}, None},
	{"nothing stated, etag", exchange(200, "Etag", `"a"`), Options{}, None},
	{"nothing stated, broken etag", exchange(200, "Etag", `a`), Options{}, NoFreshness},
	{"nothing stated, modified in time to come", exchange(200, "Last-Modified", date(noon.Add(time.Hour))), Options{}, None},
	{"heuristic", exchange(200, "Last-Modified", date(noon.Add(-time.Hour))), Options{}, None},
	{"max-age=0", exchange(200, cc, "max-age=0"), Options{}, Expired},
	{"max-age=0, etag", exchange(200, cc, "max-age=0", "Etag", `"a"`), Options{}, None},
	{"max-age=0, its own stale-while-revalidate", exchange(200, cc, "max-age=0, stale-while-revalidate=1"), Options{}, None},
	{"max-age=0, stale-if-error", exchange(200, cc, "max-age=0, stale-if-error=1"), Options{}, None},
	{"max-age=0, the operator's stale-if-error", exchange(200, cc, "max-age=0"), Options{StaleIfError: sec}, Expired},
	{"max-age=0, the operator's stale-while-revalidate", exchange(200, cc, "max-age=0"), Options{StaleWhileRevalidate: sec}, Expired},
	{"max-age=0, stale but must not", exchange(200, cc, "max-age=0, stale-if-error=1, must-revalidate"), Options{}, Expired},
	{"older than its lifetime", exchange(200, cc, "max-age=5", "Age", "5"), Options{}, Expired},
	{"just not older", exchange(200, cc, "max-age=5", "Age", "4"), Options{}, None},
	{"older than stale-if-error too", exchange(200, cc, "max-age=5, stale-if-error=2", "Age", "7"), Options{}, Expired},
	{"within stale-if-error", exchange(200, cc, "max-age=5, stale-if-error=3", "Age", "7"), Options{}, None},
	{"expires 0", exchange(200, "Expires", "0"), Options{}, Expired},
	{"no-cache", exchange(200, cc, "no-cache, max-age=5"), Options{}, Expired},
	{"no-cache, etag", exchange(200, cc, "no-cache, max-age=5", "Etag", `"a"`), Options{}, None},
}

func TestStorableReasons(t *testing.T) {
	for _, tt := range slices.Concat(storableByRequest, storableByResponse, storableByStatus, storableByFreshness) {
		t.Run(tt.name, func(t *testing.T) {
			f, got := Storable(tt.x, tt.o)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got != None && f != (Freshness{}) {
				t.Errorf("not storable, but %+v", f)
			}
		})
	}
}

func TestStorableStatuses(t *testing.T) {
	heuristic := map[int]bool{200: true, 203: true, 204: true, 300: true, 301: true, 308: true,
		404: true, 405: true, 410: true, 501: true}
	refused := map[int]bool{206: true, 304: true, 401: true, 407: true, 412: true, 414: true, 416: true,
		417: true, 421: true, 425: true, 426: true, 428: true, 431: true, 511: true}
	blaming := map[int]bool{400: true, 406: true, 408: true, 409: true, 411: true, 413: true, 415: true, 422: true, 429: true}
	mustUnderstand := map[int]bool{302: true, 303: true, 307: true}
	for status := 200; status < 600; status++ {
		_, reason := Storable(exchange(status, "Cache-Control", "max-age=5"), Options{})
		if got := reason == None; got == (refused[status] || blaming[status]) {
			t.Errorf("%d, max-age: %q", status, reason)
		}
		_, reason = Storable(exchange(status, "Cache-Control", "max-age=5"), Options{TTL: map[int]time.Duration{status: 0}})
		if got := reason == None; got == refused[status] {
			t.Errorf("%d, max-age, and a ttl that names it: %q", status, reason)
		}
		_, reason = Storable(exchange(status), Options{TTL: map[int]time.Duration{0: sec}})
		if got := reason == None; got != heuristic[status] {
			t.Errorf("%d, ttl for any: %q", status, reason)
		}
		_, reason = Storable(exchange(status, "Cache-Control", "max-age=5, must-understand, no-store"), Options{})
		if got := reason == None; got != (heuristic[status] || mustUnderstand[status]) {
			t.Errorf("%d, must-understand: %q", status, reason)
		}
		unkeyed := exchange(status, "Cache-Control", "max-age=5")
		unkeyed.Unkeyed = true
		_, reason = Storable(unkeyed, Options{TTL: map[int]time.Duration{status: sec}})
		if got := reason == None; got != (status < 400 && !refused[status]) {
			t.Errorf("%d, under a key without something of the URL: %q", status, reason)
		}
	}
}

func TestStorableFreshness(t *testing.T) {
	const cc = "Cache-Control"
	o := Options{StaleWhileRevalidate: 30 * sec, StaleIfError: 40 * sec}
	tests := []struct {
		name string
		x    Exchange
		o    Options
		want Freshness
	}{
		{"plain", exchange(200, cc, "max-age=5", "Age", "2"), Options{}, Freshness{InitialAge: 2 * sec, Lifetime: 5 * sec}},
		{"heuristic", exchange(200, "Last-Modified", date(noon.Add(-100*sec))), Options{}, Freshness{Lifetime: 10 * sec, Heuristic: true}},
		{"ttl is no heuristic", exchange(200), Options{TTL: map[int]time.Duration{200: sec}}, Freshness{Lifetime: sec}},
		{"stale as configured", exchange(200, cc, "max-age=5"), o, Freshness{Lifetime: 5 * sec, StaleWhileRevalidate: 30 * sec, StaleIfError: 40 * sec}},
		{"stale as stated", exchange(200, cc, "max-age=5, stale-while-revalidate=1, stale-if-error=2"), o,
			Freshness{Lifetime: 5 * sec, StaleWhileRevalidate: sec, StaleIfError: 2 * sec}},
		{"no stale as stated", exchange(200, cc, "max-age=5, stale-while-revalidate=0, stale-if-error=x"), o, Freshness{Lifetime: 5 * sec}},
		{"negative options", exchange(200, cc, "max-age=5"), Options{StaleWhileRevalidate: -1, StaleIfError: -1}, Freshness{Lifetime: 5 * sec}},
		{"must-revalidate", exchange(200, cc, "max-age=5, must-revalidate, stale-if-error=2"), o, Freshness{Lifetime: 5 * sec, MustRevalidate: true, SharedAuth: true}},
		{"proxy-revalidate", exchange(200, cc, "max-age=5, proxy-revalidate, stale-while-revalidate=2"), o, Freshness{Lifetime: 5 * sec, MustRevalidate: true}},
		{"s-maxage", exchange(200, cc, "s-maxage=5"), Options{}, Freshness{Lifetime: 5 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage, stale as stated", exchange(200, cc, "s-maxage=5, stale-while-revalidate=2"), Options{},
			Freshness{Lifetime: 5 * sec, StaleWhileRevalidate: 2 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage, stale as configured", exchange(200, cc, "s-maxage=5"), o,
			Freshness{Lifetime: 5 * sec, StaleWhileRevalidate: 30 * sec, StaleIfError: 40 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage, stale as stated before configured", exchange(200, cc, "s-maxage=5, stale-while-revalidate=2, stale-if-error=0"), o,
			Freshness{Lifetime: 5 * sec, StaleWhileRevalidate: 2 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage and another max-age, stale as configured", exchange(200, cc, "max-age=0, s-maxage=5"), o,
			Freshness{Lifetime: 5 * sec, StaleWhileRevalidate: 30 * sec, StaleIfError: 40 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage that repeats max-age, stale as configured", exchange(200, cc, "max-age=5, s-maxage=5"), o,
			Freshness{Lifetime: 5 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage that repeats max-age, stale as stated", exchange(200, cc, "max-age=5, s-maxage=5, stale-if-error=2"), o,
			Freshness{Lifetime: 5 * sec, StaleIfError: 2 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage=0, stale as configured", exchange(200, cc, "s-maxage=0", "Etag", `"a"`), o, Freshness{MustRevalidate: true, SharedAuth: true}},
		{"s-maxage=0, stale as stated", exchange(200, cc, "s-maxage=0, stale-if-error=2"), o, Freshness{StaleIfError: 2 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage and must-revalidate, stale as stated", exchange(200, cc, "s-maxage=5, must-revalidate, stale-while-revalidate=2"), o, Freshness{Lifetime: 5 * sec, MustRevalidate: true, SharedAuth: true}},
		{"s-maxage and proxy-revalidate, stale as stated", exchange(200, cc, "s-maxage=5, proxy-revalidate, stale-if-error=2"), o, Freshness{Lifetime: 5 * sec, MustRevalidate: true, SharedAuth: true}},
		{"no-cache", exchange(200, cc, "no-cache, max-age=5, stale-if-error=2", "Etag", `"a"`), o, Freshness{Lifetime: 5 * sec, NoCache: true}},
		{"no-cache of a field", exchange(200, cc, `no-cache="x", max-age=5`), Options{}, Freshness{Lifetime: 5 * sec}},
		{"public", exchange(200, cc, "max-age=5, public"), Options{}, Freshness{Lifetime: 5 * sec, SharedAuth: true}},
		{"immutable", exchange(200, cc, "max-age=5, immutable"), Options{}, Freshness{Lifetime: 5 * sec, Immutable: true}},
		{"validator only", exchange(200, "Etag", `"a"`), o, Freshness{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Received = noon
			got, reason := Storable(tt.x, tt.o)
			if reason != None || got != tt.want {
				t.Errorf("%q\n got %+v\nwant %+v", reason, got, tt.want)
			}
		})
	}
}

func TestCanonicalNames(t *testing.T) {
	h := http.Header{"Accept": {"a"}, "accept": {"b"}, "vary": {"x"}, "a b": {"c"}}
	got := canonicalNames(h)
	want := http.Header{"Accept": {"a", "b"}, "Vary": {"x"}, "a b": {"c"}}
	equalHeader(t, got, want)
	if len(h["Accept"]) != 1 || len(h) != 4 {
		t.Errorf("the argument was changed: %v", h)
	}
}

func BenchmarkStorable(b *testing.B) {
	x := exchange(200, "Cache-Control", "public, max-age=60", "Vary", "Accept-Encoding", "Etag", `"a"`,
		"Date", date(noon), "Content-Type", "text/html", "Last-Modified", date(noon))
	b.ReportAllocs()
	for b.Loop() {
		Storable(x, Options{})
	}
}
