package rfc9111

import (
	"math"
	"net/http"
	"testing"
	"time"
)

func TestLifetime(t *testing.T) {
	in := func(d time.Duration) string { return date(noon.Add(d)) }
	day := 24 * time.Hour
	ttl := Options{TTL: map[int]time.Duration{0: 7 * sec, 404: 3 * sec, 302: 2 * sec, 410: -1}}
	tests := []struct {
		name   string
		x      Exchange
		o      Options
		want   time.Duration
		source lifetimeSource
	}{
		{"s-maxage before all", exchange(200, "Cache-Control", "max-age=5, s-maxage=6", "Expires", in(9*sec)), ttl, 6 * sec, sourceResponse},
		{"s-maxage 0 before all", exchange(200, "Cache-Control", "max-age=5, s-maxage=0"), ttl, 0, sourceResponse},
		{"max-age before expires", exchange(200, "Cache-Control", "max-age=5", "Expires", in(9*sec)), ttl, 5 * sec, sourceResponse},
		{"broken max-age before expires", exchange(200, "Cache-Control", "max-age=x", "Expires", in(9*sec)), ttl, 0, sourceResponse},
		{"expires before ttl", exchange(200, "Expires", in(9*sec)), ttl, 9 * sec, sourceResponse},
		{"expires counts from date", exchange(200, "Expires", in(9*sec), "Date", in(-5*sec)), ttl, 14 * sec, sourceResponse},
		{"expires counts from a date to come", exchange(200, "Expires", in(9*sec), "Date", in(5*sec)), ttl, 4 * sec, sourceResponse},
		{"expires with a broken date", exchange(200, "Expires", in(9*sec), "Date", "x"), ttl, 9 * sec, sourceResponse},
		{"expires in the past", exchange(200, "Expires", in(-9*sec)), ttl, 0, sourceResponse},
		{"expires 0", exchange(200, "Expires", "0"), ttl, 0, sourceResponse},
		{"expires -1", exchange(200, "Expires", "-1"), ttl, 0, sourceResponse},
		{"expires empty", exchange(200, "Expires", ""), ttl, 0, sourceResponse},
		{"expires twice the same", exchange(200, "Expires", in(9*sec), "Expires", in(9*sec)+" "), ttl, 9 * sec, sourceResponse},
		{"expires twice, differing", exchange(200, "Expires", in(9*sec), "Expires", in(8*sec)), ttl, 0, sourceResponse},
		{"expires twice, one broken", exchange(200, "Expires", in(9*sec), "Expires", "0"), ttl, 0, sourceResponse},
		{"expires twice in a line", exchange(200, "Expires", in(9*sec)+", "+in(9*sec)), ttl, 0, sourceResponse},
		{"expires rfc850", exchange(200, "Expires", noon.Add(9*sec).Format("Monday, 02-Jan-06 15:04:05 GMT")), ttl, 9 * sec, sourceResponse},
		{"expires asctime", exchange(200, "Expires", noon.Add(9*sec).Format(time.ANSIC)), ttl, 9 * sec, sourceResponse},
		{"expires rfc850 in another zone", exchange(200, "Expires", noon.Add(9*sec).Format("Monday, 02-Jan-06 15:04:05 PST")), ttl, 0, sourceResponse},
		{"expires in utc", exchange(200, "Expires", noon.Add(9*sec).Format("Mon, 02 Jan 2006 15:04:05 UTC")), ttl, 0, sourceResponse},
		{"expires with an offset", exchange(200, "Expires", noon.Add(9*sec).Format(time.RFC1123Z)), ttl, 0, sourceResponse},
		{"expires iso 8601", exchange(200, "Expires", noon.Add(9*sec).Format(time.RFC3339)), ttl, 0, sourceResponse},
		{"expires in 9999", exchange(200, "Expires", "Fri, 31 Dec 9999 23:59:59 GMT"), ttl, maxDelta, sourceResponse},
		{"expires in year 0", exchange(200, "Expires", "Sat, 01 Jan 0000 00:00:00 GMT"), ttl, 0, sourceResponse},

		{"ttl for any status", exchange(200), ttl, 7 * sec, sourceConfigured},
		{"ttl before heuristic", exchange(200, "Last-Modified", in(-day)), ttl, 7 * sec, sourceConfigured},
		{"ttl for this status", exchange(404), ttl, 3 * sec, sourceConfigured},
		{"ttl for a status that is not heuristic", exchange(302), ttl, 2 * sec, sourceConfigured},
		{"ttl for any is not for 307", exchange(307), ttl, 0, sourceNone},
		{"ttl for any is not for 500", exchange(500), ttl, 0, sourceNone},
		{"negative ttl", exchange(410), ttl, 0, sourceConfigured},

		{"heuristic", exchange(200, "Last-Modified", in(-100*sec)), Options{}, 10 * sec, sourceHeuristic},
		{"heuristic counts from date", exchange(200, "Last-Modified", in(-100*sec), "Date", in(-50*sec)), Options{}, 5 * sec, sourceHeuristic},
		{"heuristic is at most a day", exchange(200, "Last-Modified", in(-1000*day)), Options{}, day, sourceHeuristic},
		{"heuristic of year 1", exchange(200, "Last-Modified", "Mon, 01 Jan 0001 00:00:00 GMT"), Options{}, day, sourceHeuristic},
		{"modified in time to come", exchange(200, "Last-Modified", in(100*sec)), Options{}, 0, sourceNone},
		{"modified just now", exchange(200, "Last-Modified", in(0)), Options{}, 0, sourceNone},
		{"modified broken", exchange(200, "Last-Modified", "yesterday"), Options{}, 0, sourceNone},
		{"modified at two times", exchange(200, "Last-Modified", in(-100*sec), "Last-Modified", in(-200*sec)), Options{}, 0, sourceNone},
		{"heuristic, not for 302", exchange(302, "Last-Modified", in(-100*sec)), Options{}, 0, sourceNone},
		{"no heuristic beside max-age", exchange(200, "Last-Modified", in(-100*sec), "Cache-Control", "max-age=0"), Options{}, 0, sourceResponse},
		{"nothing", exchange(200), Options{}, 0, sourceNone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, source := lifetimeOf(tt.x, ParseResponse(tt.x.Response), tt.o)
			if got != tt.want || source != tt.source {
				t.Errorf("got %v from %d, want %v from %d", got, source, tt.want, tt.source)
			}
		})
	}
}

func TestInitialAge(t *testing.T) {
	tests := []struct {
		name     string
		sent     time.Duration // before noon
		received time.Duration // after noon
		h        http.Header
		want     time.Duration
	}{
		{"nothing stated", 0, 0, nil, 0},
		{"delay", 3 * sec, 0, nil, 3 * sec},
		{"delay in fractions", 0, sec / 4, nil, sec / 4},
		{"sent after received", -3 * sec, 0, nil, 0},
		{"age", 0, 0, header("Age", "7"), 7 * sec},
		{"age and delay", 3 * sec, 0, header("Age", "7"), 10 * sec},
		{"date in the past", 0, 0, header("Date", date(noon.Add(-8*sec))), 8 * sec},
		{"date to come", 0, 0, header("Date", date(noon.Add(8*sec))), 0},
		{"date broken", 0, 0, header("Date", "0"), 0},
		{"date in year 1", 0, 0, header("Date", "Mon, 01 Jan 0001 00:00:00 GMT"), maxDelta},
		{"dates differ", 0, 0, header("Date", date(noon.Add(-8*sec)), "Date", date(noon)), 0},
		{"date has whole seconds", -sec, sec * 9 / 10, header("Date", date(noon)), 0},
		{"made in one second, here in the next", -sec * 9 / 10, sec + sec/10, header("Date", date(noon)), sec / 5},
		{"made in the second before it was asked for", -sec, sec + sec/10, header("Date", date(noon)), sec},
		{"made for this request, which took long", -sec / 10, 5 * sec, header("Date", date(noon.Add(sec))), 49 * sec / 10},
		{"date before age", 3 * sec, 0, header("Age", "2", "Date", date(noon.Add(-8*sec))), 8 * sec},
		{"age before date", 3 * sec, 0, header("Age", "6", "Date", date(noon.Add(-8*sec))), 9 * sec},
		{"age list: first", 0, 0, header("Age", "7, 2"), 7 * sec},
		{"age lines: first", 0, 0, header("Age", "7", "Age", "9"), 7 * sec},
		{"age lines: first readable", 0, 0, header("Age", "-7", "Age", "x, 9"), 9 * sec},
		{"age negative", 0, 0, header("Age", "-7"), 0},
		{"age fraction", 0, 0, header("Age", "7.5"), 0},
		{"age empty", 0, 0, header("Age", ""), 0},
		{"age with space", 0, 0, header("Age", " 7\t"), 7 * sec},
		{"age overflows", 3 * sec, 0, header("Age", "99999999999999999999"), maxDelta},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := Exchange{Response: tt.h, Sent: noon.Add(-tt.sent), Received: noon.Add(tt.received)}
			if got, _ := initialAge(x); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got, _ := initialAge(Exchange{Received: noon}); got != 0 {
		t.Errorf("sent is not known: got %v, want 0", got)
	}
}

func TestAgeAndTTL(t *testing.T) {
	tests := []struct {
		name     string
		f        Freshness
		at       time.Duration // after noon
		age, ttl time.Duration
	}{
		{"on arrival", Freshness{InitialAge: 2 * sec, Lifetime: 10 * sec}, 0, 2 * sec, 8 * sec},
		{"later", Freshness{InitialAge: 2 * sec, Lifetime: 10 * sec}, 5 * sec, 7 * sec, 3 * sec},
		{"stale", Freshness{InitialAge: 2 * sec, Lifetime: 10 * sec}, 15 * sec, 17 * sec, -7 * sec},
		{"clock went back", Freshness{InitialAge: 2 * sec, Lifetime: 10 * sec}, -15 * sec, 2 * sec, 8 * sec},
		{"negative initial age", Freshness{InitialAge: -2 * sec, Lifetime: 10 * sec}, sec, sec, 9 * sec},
		{"negative lifetime", Freshness{Lifetime: math.MinInt64}, sec, sec, -sec},
		{"largest of all", Freshness{InitialAge: math.MaxInt64, Lifetime: math.MaxInt64}, math.MaxInt64, maxDelta, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Received = noon
			now := noon.Add(tt.at)
			if got := tt.f.Age(now); got != tt.age {
				t.Errorf("age: got %v, want %v", got, tt.age)
			}
			if got := tt.f.TTL(now); got != tt.ttl {
				t.Errorf("ttl: got %v, want %v", got, tt.ttl)
			}
		})
	}
	if use, _ := Reuse(new(Request), new(Freshness), Stored, noon); use != Validate {
		t.Errorf("the zero Freshness: use %d, want Validate", use)
	}
}

func TestParseDate(t *testing.T) {
	want := time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)
	for _, text := range []string{
		"Sun, 22 Nov 2026 12:00:00 GMT", "Sunday, 22-Nov-26 12:00:00 GMT", "Sun Nov 22 12:00:00 2026",
		"sun, 22 NOV 2026 12:00:00 gmt", "SUNDAY, 22-nov-26 12:00:00 Gmt", "SUN nov 22 12:00:00 2026",
	} {
		if got, ok := parseDate(text); !ok || !got.Equal(want) {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	if got, ok := parseDate("Fri Nov  6 12:00:00 2026"); !ok || got.Day() != 6 {
		t.Errorf("one digit in asctime: %v %v", got, ok)
	}
	for _, text := range []string{
		"", "0", "-1", "Sun, 22 Nov 2026 12:00:00", "Sun, 22 Nov 2026 12:00:00 UTC", "Sun, 22 Nov 2026 12:00:00 +0000",
		"Sunday, 22-Nov-26 12:00:00 CET", "Sunday, 22-Nov-2026 12:00:00 GMT", "Sun, 22-Nov-26 12:00:00 GMT",
		"Sun, 22  Nov 2026 12:00:00 GMT", "Sun,  22 Nov 2026 12:00:00 GMT", "Sun, 22 Nov 2026 12:00:00  GMT",
		"Sun, 2 Nov 2026 12:00:00 GMT", "Sun, 22 Nov 2026 2:00:00 GMT", "Sun, 22 Nov 26 12:00:00 GMT",
		"Sun Nov 2 12:00:00 2026", "Sun Nov 22 12:00:00 2026 GMT", "22 Nov 2026 12:00:00 GMT", "Sun, 22 Nov 2026 25:00:00 GMT",
		"Sun, 22 Nov 2026 12:00:00 GMT, x", "Sun, 22 Nov 2026 12.00.00 GMT",
	} {
		if got, ok := parseDate(text); ok {
			t.Errorf("%q: read as %v", text, got)
		}
	}
}

func TestStaleAsOf(t *testing.T) {
	// Fresh for 10 s, 4 s of which are over.
	plain := Freshness{Received: noon, Lifetime: 10 * sec, StaleWhileRevalidate: 2 * sec, StaleIfError: 3 * sec, Immutable: true}
	at := noon.Add(4 * sec)
	must, limited, noCache := plain, plain, plain
	must.MustRevalidate, must.StaleWhileRevalidate, must.StaleIfError = true, 0, 0
	limited.MustRevalidate, limited.StaleIfError = true, 0
	noCache.NoCache = true
	if got, want := plain.StaleAsOf(at), (Freshness{Received: noon, Lifetime: 4 * sec, StaleWhileRevalidate: 8 * sec, StaleIfError: 9 * sec}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := limited.StaleAsOf(at), (Freshness{Received: noon, Lifetime: 4 * sec, StaleWhileRevalidate: 8 * sec, MustRevalidate: true}); got != want {
		t.Errorf("s-maxage beside stale-while-revalidate: got %+v, want %+v", got, want)
	}
	for name, f := range map[string]Freshness{"must-revalidate": must, "no-cache": noCache} {
		got := f.StaleAsOf(at)
		if got.TTL(at) != 0 || got.StaleWhileRevalidate != f.StaleWhileRevalidate || got.StaleIfError != f.StaleIfError || got.Immutable {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	for _, late := range []time.Duration{10 * sec, 11 * sec} { // it is stale anyway
		if got := plain.StaleAsOf(noon.Add(late)); got != plain {
			t.Errorf("after %v: got %+v", late, got)
		}
	}
}

// TestAgeGoesByWhicheverClockHasGoneFurther: one stands still while the machine is suspended,
// the other may be set.
func TestAgeGoesByWhicheverClockHasGoneFurther(t *testing.T) {
	received := time.Now()
	f := Freshness{Received: received, Lifetime: time.Hour}
	for _, by := range []time.Duration{0, 2 * time.Hour, -2 * time.Hour} {
		now := stepped(received.Add(10*time.Minute), by)
		if got, want := f.Age(now), 10*time.Minute+max(by, 0); got != want {
			t.Errorf("set by %v: %v old, want %v", by, got, want)
		}
		if fresh := f.TTL(now) > 0; fresh != (by <= 0) {
			t.Errorf("set by %v: fresh: %v", by, fresh)
		}
	}
}
