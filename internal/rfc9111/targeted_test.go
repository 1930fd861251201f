package rfc9111

import (
	"net/http"
	"testing"
	"time"
)

func TestTargetedField(t *testing.T) {
	const plain = "max-age=1"
	received := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		targeted []string
		want     time.Duration
		reason   Reason
	}{
		"absent":               {nil, time.Second, None},
		"goes first":           {[]string{"max-age=60"}, time.Minute, None},
		"several lines":        {[]string{"public", "max-age=60"}, time.Minute, None},
		"the last one counts":  {[]string{"max-age=60, max-age=30"}, 30 * time.Second, None},
		"with parameters":      {[]string{"max-age=60;a=b"}, time.Minute, None},
		"no-store":             {[]string{"no-store, max-age=60"}, 0, NoStore},
		"private":              {[]string{"private"}, 0, Private},
		"private for a field":  {[]string{`private="x-a", max-age=60`}, time.Minute, None},
		"no-store, negated":    {[]string{"no-store=?0, max-age=60"}, time.Minute, None},
		"no freshness in it":   {[]string{"public"}, 0, NoFreshness},
		"unknown only":         {[]string{"foo"}, 0, NoFreshness},
		"empty":                {[]string{""}, time.Second, None},
		"not a dictionary":     {[]string{"max-age=60, &"}, time.Second, None},
		"upper case":           {[]string{"Max-Age=60"}, time.Second, None},
		"quoted number":        {[]string{`max-age="60"`}, 0, NoFreshness},
		"decimal":              {[]string{"max-age=60.5"}, 0, NoFreshness},
		"boolean":              {[]string{"max-age"}, 0, NoFreshness},
		"negative":             {[]string{"max-age=-60"}, 0, NoFreshness},
		"number where none is": {[]string{"no-store=60, max-age=60"}, time.Minute, None},
		"inner list":           {[]string{"no-store=(a b), max-age=60"}, time.Minute, None},
		"token":                {[]string{"no-cache=a, max-age=60"}, time.Minute, None},
	} {
		h := http.Header{"Cache-Control": {plain}, "Date": {received.UTC().Format(http.TimeFormat)}}
		h.Set("Expires", received.Add(time.Hour).UTC().Format(http.TimeFormat))
		for _, line := range test.targeted {
			h.Add("CDN-Cache-Control", line)
		}
		f, why := Storable(Exchange{Method: http.MethodGet, Status: 200, Response: h, Received: received}, Options{})
		if why != test.reason || f.Lifetime != test.want {
			t.Errorf("%s: %v, %v; want %v, %v", name, f.Lifetime, why, test.want, test.reason)
		}
	}
}

func TestSurrogateControl(t *testing.T) {
	received := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		field  []string
		want   time.Duration
		reason Reason
	}{
		"max-age":           {[]string{"max-age=60"}, time.Minute, None},
		"upper case":        {[]string{"Max-Age=60"}, time.Minute, None},
		"with an extension": {[]string{"max-age=60+600"}, time.Minute, None},
		"no-store":          {[]string{"no-store"}, 0, NoStore},
		"no-store-remote":   {[]string{"max-age=60, no-store-remote"}, 0, NoStore},
		"aimed at us":       {[]string{"max-age=60;groupcache"}, time.Minute, None},
		"aimed at others":   {[]string{"max-age=60;others"}, time.Second, None},
		"both":              {[]string{"no-store;others", "max-age=60"}, time.Minute, None},
		"not a number":      {[]string{"max-age=x"}, 0, Expired},
		"content only":      {[]string{`content="ESI/1.0"`}, time.Second, None},
		"empty":             {[]string{""}, time.Second, None},
	} {
		h := http.Header{"Cache-Control": {"max-age=1"}, "Date": {received.Format(http.TimeFormat)}, "Surrogate-Control": test.field}
		f, why := Storable(Exchange{Method: http.MethodGet, Status: 200, Response: h, Received: received}, Options{})
		if why != test.reason || f.Lifetime != test.want {
			t.Errorf("%s: %v, %v; want %v, %v", name, f.Lifetime, why, test.want, test.reason)
		}
	}
}

func TestStalenessOfSurrogateControl(t *testing.T) {
	const minute, hour = time.Minute, time.Hour
	operators := Options{StaleWhileRevalidate: 7 * sec, StaleIfError: 8 * sec}
	for _, tt := range []struct {
		name    string
		fields  []string
		targets []string
		want    Freshness // without Received
	}{
		{"beside max-age", []string{"Surrogate-Control", "max-age=60, stale-while-revalidate=5, stale-if-error=3600"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 5 * sec, StaleIfError: hour}},
		{"as other surrogates document it", []string{"Cache-Control", "max-age=0", "Surrogate-Control", "max-age=86400, stale-while-revalidate=60"}, nil,
			Freshness{Lifetime: 24 * hour, StaleWhileRevalidate: minute, StaleIfError: 8 * sec}},
		{"beside the staleness of Cache-Control", []string{"Cache-Control", "max-age=1, stale-if-error=1", "Surrogate-Control", "max-age=60, stale-if-error=3600"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 7 * sec, StaleIfError: hour}},
		{"alone, Cache-Control says how long", []string{"Cache-Control", "max-age=60, stale-while-revalidate=1, public", "Surrogate-Control", "stale-while-revalidate=5, stale-if-error=3600"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 5 * sec, StaleIfError: hour, SharedAuth: true}},
		{"alone, beside must-revalidate", []string{"Cache-Control", "max-age=60, must-revalidate", "Surrogate-Control", "stale-if-error=3600"}, nil,
			Freshness{Lifetime: minute, MustRevalidate: true, SharedAuth: true}},
		{"aimed at others", []string{"Cache-Control", "max-age=60", "Surrogate-Control", "stale-if-error=3600;others"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 7 * sec, StaleIfError: 8 * sec}},
		{"aimed at us", []string{"Surrogate-Control", "stale-if-error=5;others, max-age=60, stale-if-error=3600;groupcache"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 7 * sec, StaleIfError: hour}},
		{"no number", []string{"Surrogate-Control", "max-age=60, stale-if-error=x"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 7 * sec}},
		{"of a field that does not count", []string{"Cache-Control", "max-age=60", "Surrogate-Control", "stale-if-error=3600"}, []string{"Cdn-Cache-Control"},
			Freshness{Lifetime: minute, StaleWhileRevalidate: 7 * sec, StaleIfError: 8 * sec}},
		{"behind a field that counts", []string{"CDN-Cache-Control", "max-age=60", "Surrogate-Control", "stale-if-error=3600"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 7 * sec, StaleIfError: 8 * sec}},
		{"of a targeted field", []string{"CDN-Cache-Control", "max-age=60, stale-while-revalidate=5, stale-if-error=3600"}, nil,
			Freshness{Lifetime: minute, StaleWhileRevalidate: 5 * sec, StaleIfError: hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := operators
			o.Targeted = tt.targets
			tt.want.Received = noon
			if got, why := Storable(exchange(200, tt.fields...), o); why != None || got != tt.want {
				t.Errorf("%q\n got %+v\nwant %+v", why, got, tt.want)
			}
		})
	}
}

// The examples of RFC 9213 §2.2, §2.3 and §3.1, and what the sections say beside.
func TestTargetList(t *testing.T) {
	received := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	example := []string{"Examplecdn-Cache-Control", "Cdn-Cache-Control"}
	for _, tt := range []struct {
		name    string
		targets []string // nil: the default
		fields  []string
		want    time.Duration
		reason  Reason
	}{
		{"§2.2: the first of the list", example, []string{"CDN-Cache-Control", "max-age=60", "ExampleCDN-Cache-Control", "max-age=3600"}, time.Hour, None},
		{"§2.2: the first is empty", example, []string{"CDN-Cache-Control", "max-age=60", "ExampleCDN-Cache-Control", ""}, time.Minute, None},
		{"§2.2: the first cannot be read", example, []string{"CDN-Cache-Control", "max-age=60", "ExampleCDN-Cache-Control", "max-age=3600, &"}, time.Minute, None},
		{"§2.2: none can be read", example, []string{"CDN-Cache-Control", "&", "ExampleCDN-Cache-Control", "&", "Cache-Control", "max-age=1"}, time.Second, None},
		{"§2.2: what is not on the list", example, []string{"OtherCDN-Cache-Control", "max-age=60", "Groupcache-Cache-Control", "max-age=60", "Surrogate-Control", "max-age=60", "Cache-Control", "max-age=1"}, time.Second, None},
		{"§2.2: Cache-Control and Expires are ignored", example, []string{"CDN-Cache-Control", "public", "Cache-Control", "max-age=1", "Expires", date(received.Add(time.Hour))}, 0, NoFreshness},
		{"§2.3", nil, []string{"Age", "1800", "Cache-Control", "max-age=600", "CDN-Cache-Control", "max-age=3600"}, time.Hour, None},
		{"§3.1: longer here", nil, []string{"Cache-Control", "max-age=60, s-maxage=120", "CDN-Cache-Control", "max-age=600"}, 10 * time.Minute, None},
		{"§3.1: only here", nil, []string{"CDN-Cache-Control", "max-age=600", "Cache-Control", "no-store"}, 10 * time.Minute, None},
		{"§3.1: nowhere", nil, []string{"Cache-Control", "no-store"}, 0, NoStore},
		{"§3.1: here, for no time", nil, []string{"Cache-Control", "no-store", "CDN-Cache-Control", "none", "Etag", `"1"`}, 0, None},
		{"by default", nil, []string{"Groupcache-Cache-Control", "max-age=1", "CDN-Cache-Control", "max-age=2", "Surrogate-Control", "max-age=3", "Cache-Control", "max-age=4"}, time.Second, None},
		{"by default, without the first", nil, []string{"CDN-Cache-Control", "max-age=2", "Surrogate-Control", "max-age=3", "Cache-Control", "max-age=4"}, 2 * time.Second, None},
		{"by default, the last", nil, []string{"Surrogate-Control", "max-age=3", "Cache-Control", "max-age=4"}, 3 * time.Second, None},
		{"not for a CDN in front", nil, []string{"Groupcache-Cache-Control", "no-store", "CDN-Cache-Control", "max-age=60"}, 0, NoStore},
		{"Surrogate-Control where the operator wants it", []string{"Surrogate-Control", "Cdn-Cache-Control"}, []string{"CDN-Cache-Control", "max-age=2", "Surrogate-Control", "max-age=3+5;groupcache"}, 3 * time.Second, None},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := Exchange{Method: http.MethodGet, Status: 200, Response: header(append(tt.fields, "Date", date(received))...), Received: received}
			f, why := Storable(x, Options{Targeted: tt.targets})
			if why != tt.reason || f.Lifetime != tt.want {
				t.Errorf("%v, %v; want %v, %v", f.Lifetime, why, tt.want, tt.reason)
			}
			stored := StoredHeader(x.Response, Options{Targeted: tt.targets})
			for i := 0; i < len(tt.fields); i += 2 {
				if name := http.CanonicalHeaderKey(tt.fields[i]); name != "Age" && len(stored[name]) == 0 {
					t.Errorf("%s is not passed on", name)
				}
			}
		})
	}
}

func TestTargetedFieldsOfOneClient(t *testing.T) {
	h := header("Groupcache-Cache-Control", `max-age=60, private="x-a"`, "X-A", "1", "X-B", "2")
	equalHeader(t, StoredHeader(h, Options{}), header("Groupcache-Cache-Control", `max-age=60, private="x-a"`, "X-B", "2"))
	equalHeader(t, StoredHeader(h, Options{Targeted: []string{"Cdn-Cache-Control"}}), h)
}

func TestCauseIsTheFieldThatCounts(t *testing.T) {
	h := header("CDN-Cache-Control", "private", "Groupcache-Cache-Control", "no-store", "Cache-Control", "max-age=1")
	for _, tt := range []struct {
		targets []string
		want    string
	}{
		{nil, "Groupcache-Cache-Control"},
		{[]string{"Cdn-Cache-Control"}, "Cdn-Cache-Control"},
		{[]string{"Other-Cache-Control"}, "Cache-Control"},
	} {
		if field, _ := Cause(NoStore, nil, h, tt.targets); field != tt.want {
			t.Errorf("%q: %s", tt.targets, field)
		}
	}
}

func FuzzTargeted(f *testing.F) {
	f.Add("max-age=60, no-store;a", "private=\"a\"")
	f.Add("max-age=60+5, stale-if-error=\"7\";groupcache", "stale-while-revalidate=x,,no-store-remote;")
	f.Add("max-age=99999999999999", "a=(1 2)")
	f.Fuzz(func(t *testing.T, a, b string) {
		d, ok := parseTargeted([]string{a, b})
		if ok && (d.MaxAge.D < 0 || d.SMaxAge.D < 0) {
			t.Errorf("%q, %q: %+v", a, b, d)
		}
		surrogate, some := parseSurrogate([]string{a, b})
		for _, d := range []Delta{surrogate.MaxAge, surrogate.StaleIfError, surrogate.StaleWhileRevalidate} {
			checkDelta(t, d)
		}
		if some != (surrogate.MaxAge.Set || surrogate.NoStore) {
			t.Errorf("%q, %q: %v, %+v", a, b, some, surrogate)
		}
	})
}
