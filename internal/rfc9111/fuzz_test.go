package rfc9111

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The seeds are what broke other caches.
var directiveSeeds = []string{
	"", ",", "max-age=5", "max-age=\"5\"", "MAX-AGE=5", "max-age=-1", "max-age=1.5", "max-age='5'",
	"max-age=99999999999999999999", "s-maxage = 5", "s-maxage= 5", "max-age=1, max-age=2",
	`no-cache="a, b", max-age=5`, `private="a`, `private="a\", no-store"`, `ext="\`, "no-store; max-age=5",
	`no-cache="Vary"`, "private=\"\xff\"", "max-stale, max-stale=5", "min-fresh=x", "=", `="`, `a="b"c,d`,
}

func FuzzParseResponse(f *testing.F) {
	for _, s := range directiveSeeds {
		f.Add(s, "max-age=7")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		r := ParseResponse(cacheControl(a, b))
		for _, d := range []Delta{r.MaxAge, r.SMaxAge, r.StaleIfError, r.StaleWhileRevalidate} {
			checkDelta(t, d)
		}
		for _, name := range slices.Concat(r.NoCacheFields, r.PrivateFields) {
			if !isToken(name) || http.CanonicalHeaderKey(name) != name {
				t.Errorf("field %q", name)
			}
		}
		// One more directive never lifts a restriction or lengthens a life.
		more := ParseResponse(cacheControl(a, b, "no-store, max-age=3"))
		if !more.NoStore || more.MaxAge.D > 3*sec || r.Private && !more.Private || r.NoCache && !more.NoCache {
			t.Errorf("%+v became %+v", r, more)
		}
		// The order of lines does not matter.
		turned := ParseResponse(cacheControl(b, a))
		if r.MaxAge != turned.MaxAge || r.NoStore != turned.NoStore || r.Private != turned.Private || r.Public != turned.Public {
			t.Errorf("%+v, turned %+v", r, turned)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range directiveSeeds {
		f.Add(s, "no-cache")
	}
	f.Fuzz(func(t *testing.T, cc, pragma string) {
		r := ParseRequest(header("Cache-Control", cc, "Pragma", pragma))
		for _, d := range []Delta{r.MaxAge, r.MinFresh, r.MaxStale, r.StaleIfError} {
			checkDelta(t, d)
		}
		if r.AnyStale && r.MaxStale.Set {
			t.Errorf("a limit and none: %+v", r)
		}
		if r != ParseRequest(cacheControl(cc)) {
			t.Error("pragma counts beside cache-control")
		}
	})
}

func FuzzStorable(f *testing.F) {
	for _, s := range directiveSeeds {
		f.Add(200, s, "Etag", `"a"`, "Authorization", "x", int64(5))
	}
	f.Add(500, "max-age=5", "Set-Cookie", "a=b", "", "", int64(-5))
	f.Add(200, `max-age=5, private="x"`, "Clear-Site-Data", `"cookies"`, "", "", int64(0))
	f.Add(511, "public, max-age=5", "", "", "", "", int64(0))
	f.Add(200, "", "Expires", "0", "", "", int64(1)<<62)
	f.Add(200, "max-age=5", "Vary", "a, *", "", "", int64(0))
	f.Add(200, "max-age=5", "Age", "99999999999999999999", "", "", int64(0))
	f.Add(200, "", "Last-Modified", "Mon, 01 Jan 0001 00:00:00 GMT", "", "", int64(0))
	f.Fuzz(func(t *testing.T, status int, cc, name, value, reqName, reqValue string, delay int64) {
		x := exchange(status, "Cache-Control", cc, name, value).with(reqName, reqValue)
		x.Sent = noon.Add(-time.Duration(delay))
		fresh, reason := Storable(x, Options{StaleIfError: time.Duration(delay)})
		if reason != None {
			if fresh != (Freshness{}) {
				t.Errorf("%q, but %+v", reason, fresh)
			}
			return
		}
		d := ParseResponse(x.Response)
		if d.Private || d.NoStore && !d.MustUnderstand || len(x.Response["Set-Cookie"]) > 0 || status == 206 || status == 304 || status == 428 || status == 511 {
			t.Errorf("stored: %+v", x)
		}
		for _, d := range []time.Duration{fresh.InitialAge, fresh.Lifetime, fresh.StaleIfError, fresh.StaleWhileRevalidate} {
			if d < 0 || d > maxDelta {
				t.Errorf("out of bounds: %+v", fresh)
			}
		}
		if age := fresh.Age(noon.Add(time.Duration(delay))); age < 0 || age > maxDelta {
			t.Errorf("age %v", age)
		}
		h := StoredHeader(x.Response, Options{})
		if _, _, again := Revalidated(x, status, h, Options{}); again == StrayNotModified {
			t.Errorf("does not validate itself: %v", h)
		}
	})
}

var spelled = regexp.MustCompile(`;q=[01]\.[0-9]*`)

// loose is what two values have in common if Selecting may take them for one:
// their members without white space, in the negotiation fields with weights that
// may be spelled in several ways and in lower case, those of Accept-Encoding in
// any order.
func loose(name string, lines []string) string {
	s := strings.Join(lines, ",")
	s = strings.NewReplacer(" ", "", "\t", "").Replace(s)
	if !strings.HasPrefix(name, "Accept") {
		return s
	}
	members := strings.Split(strings.ToLower(s), ",")
	for i, member := range members {
		members[i] = spelled.ReplaceAllStringFunc(member, func(q string) string {
			return strings.TrimRight(strings.TrimRight(q, "0"), ".") // a 1 stays, if spelled out
		})
		members[i] = strings.TrimSuffix(members[i], ";q=1")
	}
	if name == "Accept-Encoding" {
		slices.Sort(members)
	}
	return strings.Join(members, ",")
}

func FuzzSelecting(f *testing.F) {
	f.Add("gzip, br", "", "BR , gzip", "", byte(0))
	f.Add("gzip;q=0.5, br", "x", "br, gzip; q=0.5", "x", byte(0))
	f.Add("text/html, application/json", "", "application/json, text/html", "", byte(0))
	f.Add("a/b;P=Q;q=1.0;R=S, c/d;q=0.50", "", "A/b;p=Q;q=1;r=S,c/D;Q=0.5", "", byte(0))
	f.Add("", "x", "x", "", byte(0))
	f.Add("", "", "", "", byte(0b0110))
	f.Add("a", "1:b-", "a1:b", "-", byte(0))
	f.Add(`a;p="x,Y"`, `"a , b"`, `a;p="x,y"`, `"a, b"`, byte(0))
	f.Add(`"`, `\"`, `"\`, ` " `, byte(0))
	f.Add(" ", "0", ";q=1", "0", byte(0))
	f.Fuzz(func(t *testing.T, a1, a2, b1, b2 string, absent byte) {
		for _, first := range []string{"Accept", "Accept-Encoding", "Accept-Language", "X-A"} {
			names := []string{first, "X-B"}
			a, b := http.Header{}, http.Header{}
			for i, field := range []struct {
				h           http.Header
				name, value string
			}{{a, first, a1}, {a, "X-B", a2}, {b, first, b1}, {b, "X-B", b2}} {
				if absent&(1<<i) == 0 {
					field.h.Add(field.name, field.value)
				}
			}
			if Selecting(names, a) != Selecting(names, a.Clone()) {
				t.Fatalf("%v differs from itself", a)
			}
			if Selecting(names, a) != Selecting(names, b) {
				continue
			}
			for _, name := range names {
				if len(a[name]) != len(b[name]) || loose(name, a[name]) != loose(name, b[name]) {
					t.Errorf("%q and %q are taken for one", a, b)
				}
			}
		}
	})
}

func FuzzNotModified(f *testing.F) {
	for _, s := range []string{`"a"`, `W/"a"`, `*`, `"x", "a"`, `"x,"a"`, `a`, `"`, `"a`, ``, `W/`, `"a" "b"`, "\"\x00\""} {
		f.Add(s, "", `"a"`, "")
	}
	for _, s := range []string{lm, early, later, "0", "", lm + "; length=5", "Sunday, 06-Nov-94 08:49:37 PST"} {
		f.Add("", s, "", lm)
	}
	f.Fuzz(func(t *testing.T, noneMatch, since, etag, modified string) {
		stored := header("Etag", etag, "Last-Modified", modified)
		request := header("If-Modified-Since", since)
		if noneMatch != "" {
			request.Set("If-None-Match", noneMatch)
		}
		if !NotModified(request, 200, stored) {
			// The request that we would send ourselves always matches.
			own := Conditional(nil, stored)
			if len(own) > 0 && !NotModified(own, 200, stored) {
				t.Errorf("%v does not match %v", own, stored)
			}
			return
		}
		tag := strings.TrimPrefix(strings.Trim(etag, " \t"), "W/")
		switch {
		case NotModified(request, 404, stored):
			t.Error("304 for a stored 404")
		case noneMatch != "" && strings.Trim(noneMatch, " \t") != "*" && (tag == "" || !strings.Contains(noneMatch, tag)):
			t.Errorf("%q matches %q", noneMatch, etag)
		case noneMatch == "":
			s, _ := http.ParseTime(strings.TrimSpace(since))
			m, _ := http.ParseTime(strings.TrimSpace(modified))
			if m.After(s) {
				t.Errorf("%q is not after %q", modified, since)
			}
		}
	})
}

// FuzzHeaders looks at what is taken over from upstream.
func FuzzHeaders(f *testing.F) {
	f.Add("X-A", "1", "X-B", "2", "close, X-A", `private="x-b"`)
	f.Add("x-a", "1\r\nX: y", "", "", "", "")
	f.Add("Set-Cookie", "a=b", "age", "1", "vary", `no-cache="vary"`)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, connection, cc string) {
		h := http.Header{"Connection": {connection}, "Cache-Control": {cc}}
		h[name1] = append(h[name1], value1)
		h[name2] = append(h[name2], value2)
		for _, stored := range []http.Header{StoredHeader(h, Options{}), Refresh(header("X", "y"), h, Options{}), Refresh(StoredHeader(h, Options{}), h, Options{})} {
			for name, values := range stored {
				if !isToken(name) || neverStored(name) || strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
					t.Errorf("%q: %q", name, values)
				}
			}
			equalHeader(t, StoredHeader(stored, Options{}), stored)
		}
		_, _ = VaryNames(h)
	})
}
