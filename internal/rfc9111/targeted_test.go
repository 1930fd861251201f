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

func FuzzTargeted(f *testing.F) {
	f.Add("max-age=60, no-store;a", "private=\"a\"")
	f.Add("max-age=99999999999999", "a=(1 2)")
	f.Fuzz(func(t *testing.T, a, b string) {
		d, ok := parseTargeted([]string{a, b})
		if ok && (d.MaxAge.D < 0 || d.SMaxAge.D < 0) {
			t.Errorf("%q, %q: %+v", a, b, d)
		}
	})
}
