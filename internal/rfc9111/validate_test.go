package rfc9111

import (
	"net/http"
	"testing"
	"time"
)

func TestValidators(t *testing.T) {
	tests := []struct {
		name     string
		h        http.Header
		etag     string
		modified string
	}{
		{"none", nil, "", ""},
		{"both", header("Etag", ` "a" `, "Last-Modified", lm+" "), `"a"`, lm},
		{"weak", header("Etag", `W/"a"`), `W/"a"`, ""},
		{"empty tag", header("Etag", `""`), `""`, ""},
		{"comma and backslash in the tag", header("Etag", `"a,\"`), `"a,\"`, ""},
		{"bytes above ascii", header("Etag", "\"\xff\""), "\"\xff\"", ""},
		{"no quotes", header("Etag", "a"), "", ""},
		{"open", header("Etag", `"a`), "", ""},
		{"no opening quote", header("Etag", `a"`), "", ""},
		{"only a quote", header("Etag", `"`), "", ""},
		{"space in the tag", header("Etag", `"a b"`), "", ""},
		{"line break in the tag", header("Etag", "\"a\r\nb\""), "", ""},
		{"delete in the tag", header("Etag", "\"a\x7f\""), "", ""},
		{"something after", header("Etag", `"a"b`), "", ""},
		{"w in lower case", header("Etag", `w/"a"`), "", ""},
		{"the same twice", header("Etag", `"a"`, "Etag", `"a"`), `"a"`, ""},
		{"two tags", header("Etag", `"a"`, "Etag", `"b"`), "", ""},
		{"two dates", header("Last-Modified", lm, "Last-Modified", later), "", ""},
		{"no date", header("Last-Modified", "0"), "", ""},
		{"date in another zone", header("Last-Modified", noon.Format("Monday, 02-Jan-06 15:04:05 PST")), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			etag, modified := Validators(tt.h)
			if etag != tt.etag || modified != tt.modified {
				t.Errorf("got %q %q, want %q %q", etag, modified, tt.etag, tt.modified)
			}
		})
	}
}

func TestConditional(t *testing.T) {
	client := func() http.Header {
		return header("If-Match", "*", "If-None-Match", `"c"`, "If-Modified-Since", early, "If-Unmodified-Since", early,
			"If-Range", `"c"`, "Range", "bytes=0-1", "Accept", "a", "Accept", "b")
	}
	tests := []struct {
		name            string
		request, stored http.Header
		want            http.Header
	}{
		{"both nil", nil, nil, header()},
		{"nil request", nil, header("Etag", `"a"`), header("If-None-Match", `"a"`)},
		{"nothing to validate with", client(), header("X", "y"), header("Accept", "a", "Accept", "b", "Accept-Encoding", "identity")},
		{"both", client(), header("Etag", `W/"a"`, "Last-Modified", lm),
			header("Accept", "a", "Accept", "b", "Accept-Encoding", "identity", "If-None-Match", `W/"a"`, "If-Modified-Since", lm)},
		{"date only", client(), header("Last-Modified", lm), header("Accept", "a", "Accept", "b", "Accept-Encoding", "identity", "If-Modified-Since", lm)},
		{"a coding", header("Range", "bytes=0-1", "Accept-Encoding", "br"), nil, header("Accept-Encoding", "br")},
		{"no range", header("If-None-Match", `"c"`), nil, header()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.request.Clone()
			got := Conditional(tt.request, tt.stored)
			equalHeader(t, got, tt.want)
			for _, values := range got {
				values[0] = "changed"
			}
			equalHeader(t, tt.request, before)
		})
	}
}

func TestNotModified(t *testing.T) {
	tests := []struct {
		name    string
		request http.Header
		status  int
		stored  http.Header
		want    bool
	}{
		{"unconditional", nil, 200, header("Etag", `"a"`, "Last-Modified", lm), false},
		{"match", header("If-None-Match", `"a"`), 200, header("Etag", `"a"`), true},
		{"no match", header("If-None-Match", `"b"`), 200, header("Etag", `"a"`), false},
		{"case counts", header("If-None-Match", `"A"`), 200, header("Etag", `"a"`), false},
		{"204", header("If-None-Match", `"a"`), 204, header("Etag", `"a"`), true},
		{"299", header("If-None-Match", `"a"`), 299, header("Etag", `"a"`), true},
		{"199", header("If-None-Match", `"a"`), 199, header("Etag", `"a"`), false},
		{"300", header("If-None-Match", `"a"`), 300, header("Etag", `"a"`), false},
		{"404", header("If-None-Match", `*`), 404, header("Etag", `"a"`), false},
		{"weak and strong", header("If-None-Match", `W/"a"`), 200, header("Etag", `"a"`), true},
		{"strong and weak", header("If-None-Match", `"a"`), 200, header("Etag", `W/"a"`), true},
		{"last of a list", header("If-None-Match", ` , "x" ,W/"y", "a"`), 200, header("Etag", `"a"`), true},
		{"second line", header("If-None-Match", `"x"`, "If-None-Match", `"a"`), 200, header("Etag", `"a"`), true},
		{"comma in the tag", header("If-None-Match", `"x,"a","y"`), 200, header("Etag", `"a"`), false},
		{"tag with comma", header("If-None-Match", `"x,y", "z"`), 200, header("Etag", `"x,y"`), true},
		{"backslash escapes nothing", header("If-None-Match", `"x\", "a"`), 200, header("Etag", `"a"`), true},
		{"no quotes", header("If-None-Match", `a`), 200, header("Etag", `"a"`), false},
		{"no quotes on both sides", header("If-None-Match", `a`), 200, header("Etag", `a`), false},
		{"after something broken", header("If-None-Match", `x, "a"`), 200, header("Etag", `"a"`), false},
		{"before something broken", header("If-None-Match", `"a" x`), 200, header("Etag", `"a"`), false},
		{"broken line, then a good one", header("If-None-Match", `x`, "If-None-Match", `"a"`), 200, header("Etag", `"a"`), true},
		{"no comma between", header("If-None-Match", `"x" "a"`), 200, header("Etag", `"a"`), false},
		{"open", header("If-None-Match", `"a`), 200, header("Etag", `"a"`), false},
		{"star", header("If-None-Match", ` * `), 200, nil, true},
		{"star in a list", header("If-None-Match", `*, "b"`), 200, header("Etag", `"a"`), false},
		{"star in quotes", header("If-None-Match", `"*"`), 200, header("Etag", `"a"`), false},
		{"no tag stored", header("If-None-Match", `"a"`), 200, header("X", "y"), false},
		{"no tag on either side", header("If-None-Match", ","), 200, header("X", "y"), false},
		{"empty tag and none stored", header("If-None-Match", `""`), 200, header("X", "y"), false},
		{"broken tag stored", header("If-None-Match", `"a"`), 200, header("Etag", `"a`), false},

		{"none-match goes first", header("If-None-Match", `"b"`, "If-Modified-Since", later), 200, header("Etag", `"a"`, "Last-Modified", lm), false},
		{"none-match goes first, matching", header("If-None-Match", `"a"`, "If-Modified-Since", early), 200, header("Etag", `"a"`, "Last-Modified", lm), true},
		{"empty none-match goes first", header("If-None-Match", "", "If-Modified-Since", later), 200, header("Last-Modified", lm), false},
		{"since, same second", header("If-Modified-Since", lm), 200, header("Last-Modified", lm), true},
		{"since, later", header("If-Modified-Since", later), 200, header("Last-Modified", lm), true},
		{"since, earlier", header("If-Modified-Since", early), 200, header("Last-Modified", lm), false},
		{"since, rfc850", header("If-Modified-Since", noon.Format("Monday, 02-Jan-06 15:04:05 GMT")), 200, header("Last-Modified", lm), true},
		{"since, broken", header("If-Modified-Since", "tomorrow"), 200, header("Last-Modified", lm), false},
		{"since, with length", header("If-Modified-Since", lm+"; length=5"), 200, header("Last-Modified", lm), false},
		{"since, two", header("If-Modified-Since", lm, "If-Modified-Since", later), 200, header("Last-Modified", lm), false},
		{"since, 404", header("If-Modified-Since", lm), 404, header("Last-Modified", lm), false},
		{"since, with only a date stored", header("If-Modified-Since", lm), 200, header("Date", lm), true},
		{"since, before the date stored", header("If-Modified-Since", early), 200, header("Date", lm), false},
		{"since, broken date stored", header("If-Modified-Since", lm), 200, header("Last-Modified", "x", "Date", lm), false},
		{"since, nothing stored", header("If-Modified-Since", lm), 200, nil, false},
		{"if-match is not ours", header("If-Match", `"b"`, "If-None-Match", `"a"`), 200, header("Etag", `"a"`), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := NotModified(tt.request, tt.status, tt.stored); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRevalidatedReasons(t *testing.T) {
	tests := []struct {
		name        string
		stored      http.Header
		notModified http.Header
		request     http.Header
		want        Reason
	}{
		{"same tag", header("Etag", `"a"`), header("Etag", `"a"`), nil, None},
		{"weakened tag", header("Etag", `W/"a"`), header("Etag", `"a"`), nil, None},
		{"same tag, touched", header("Etag", `"a"`, "Last-Modified", lm), header("Etag", `"a"`, "Last-Modified", later), nil, None},
		{"no tag in the answer", header("Etag", `"a"`), header(), nil, None},
		{"no tag in the answer, touched", header("Etag", `"a"`, "Last-Modified", lm), header("Last-Modified", later), nil, None},
		{"another tag", header("Etag", `"a"`), header("Etag", `"b"`), nil, StrayNotModified},
		{"another tag, same date", header("Etag", `"a"`, "Last-Modified", lm), header("Etag", `"b"`, "Last-Modified", lm), nil, StrayNotModified},
		{"another tag, name in lower case", header("Etag", `"a"`), http.Header{"etag": {`"b"`}}, nil, StrayNotModified},
		{"same date", header("Last-Modified", lm), header("Last-Modified", lm), nil, None},
		{"same date and a new tag", header("Last-Modified", lm), header("Last-Modified", lm, "Etag", `"a"`), nil, None},
		{"later date", header("Last-Modified", lm), header("Last-Modified", later), nil, StrayNotModified},
		{"earlier date", header("Last-Modified", lm), header("Last-Modified", early), nil, StrayNotModified},
		{"broken date", header("Last-Modified", lm), header("Last-Modified", "x"), nil, StrayNotModified},
		{"no date before", header("X", "y"), header("Last-Modified", lm), nil, StrayNotModified},

		{"encoder's suffix", header("Etag", `"a-gzip"`, "Content-Encoding", "gzip"), header("Etag", `"a"`), nil, None},
		{"encoder's suffix, weakened", header("Etag", `W/"a-gzip"`, "Content-Encoding", "gzip"), header("Etag", `"a"`), nil, None},
		{"encoder's suffix on both", header("Etag", `"a-gzip"`, "Content-Encoding", "gzip"), header("Etag", `"a-gzip"`), nil, None},
		{"encoder's suffix on the 304", header("Etag", `"a"`, "Content-Encoding", "br"), header("Etag", `"a-br"`), nil, None},
		{"encoder's suffix with two hyphens", header("Etag", `"a--gzip"`, "Content-Encoding", "gzip"), header("Etag", `"a"`), nil, None},
		{"encoder's suffix, tag with a hyphen", header("Etag", `"a--gzip"`, "Content-Encoding", "gzip"), header("Etag", `"a-"`), nil, None},
		{"encoder's suffix, empty tag", header("Etag", `"-gzip"`, "Content-Encoding", "gzip"), header("Etag", `""`), nil, None},
		{"encoder's suffix, another tag", header("Etag", `"a-gzip"`, "Content-Encoding", "gzip"), header("Etag", `"b"`), nil, StrayNotModified},
		{"encoder's suffix, longer tag", header("Etag", `"a-gzip"`, "Content-Encoding", "gzip"), header("Etag", `"ab"`), nil, StrayNotModified},
		{"another encoder's suffix", header("Etag", `"a-br"`, "Content-Encoding", "gzip"), header("Etag", `"a"`), nil, StrayNotModified},
		{"suffix without a coding", header("Etag", `"a-gzip"`), header("Etag", `"a"`), nil, StrayNotModified},
		{"suffix and two codings", header("Etag", `"a-gzip"`, "Content-Encoding", "gzip, br"), header("Etag", `"a"`), nil, StrayNotModified},

		{"now no-store", header("Etag", `"a"`), header("Cache-Control", "no-store"), nil, NoStore},
		{"now star", header("Etag", `"a"`), header("Vary", "*"), nil, VaryStar},
		{"with a cookie", header("Etag", `"a"`), header("Set-Cookie", "a=b"), nil, None},
		{"request no-store", header("Etag", `"a"`), header(), header("Cache-Control", "no-store"), RequestNoStore},
		{"authorization", header("Etag", `"a"`), header(), header("Authorization", "x"), Authorization},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := Exchange{Method: "HEAD", Request: tt.request, Status: 304, Response: tt.notModified, Sent: noon, Received: noon}
			h, _, got := Revalidated(x, 200, tt.stored, Options{})
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if (h == nil) != (got == StrayNotModified) {
				t.Errorf("%q, but the header is %v", got, h)
			}
		})
	}
}

func TestRevalidatedFreshness(t *testing.T) {
	hourAgo := date(noon.Add(-time.Hour))
	stored := header("Etag", `"a"`, "Date", hourAgo, "Cache-Control", "max-age=60", "X", "y")
	tests := []struct {
		name        string
		notModified http.Header
		age, life   time.Duration
		want        http.Header
	}{
		{"with a date", header("Date", lm), 0, time.Minute, header("Etag", `"a"`, "Date", lm, "Cache-Control", "max-age=60", "X", "y")},
		{"without a date", header("Cache-Control", "max-age=9"), 0, 9 * sec, header("Etag", `"a"`, "Date", hourAgo, "Cache-Control", "max-age=9", "X", "y")},
		{"with a date in the past", header("Date", early), sec, time.Minute, header("Etag", `"a"`, "Date", early, "Cache-Control", "max-age=60", "X", "y")},
		{"with an age", header("Date", lm, "Age", "7"), 7 * sec, time.Minute, header("Etag", `"a"`, "Date", lm, "Cache-Control", "max-age=60", "X", "y")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := stored.Clone()
			x := Exchange{Method: "GET", Status: 304, Response: tt.notModified, Sent: noon, Received: noon}
			h, f, reason := Revalidated(x, 200, stored, Options{})
			want := Freshness{Received: noon, InitialAge: tt.age, Lifetime: tt.life}
			if reason != None || f != want {
				t.Errorf("%q\n got %+v\nwant %+v", reason, f, want)
			}
			equalHeader(t, h, tt.want)
			equalHeader(t, stored, before)
		})
	}
	x := Exchange{Method: "GET", Status: 304, Response: header(), Sent: noon, Received: noon}
	if _, _, reason := Revalidated(x, 302, header("Etag", `"a"`), Options{}); reason != NoFreshness {
		t.Errorf("the stored status does not count: %q", reason)
	}
}

func TestCompareHead(t *testing.T) {
	const etag, modified, length, coding = "Etag", "Last-Modified", "Content-Length", "Content-Encoding"
	tests := []struct {
		name         string
		stored, head http.Header
		want         Comparison
	}{
		{"nothing to compare", header(length, "5"), header(), Unclear},
		{"the same tag", header(etag, `"a"`), header(etag, `"a"`), Same},
		{"another tag", header(etag, `"a"`, modified, "x"), header(etag, `"b"`, modified, "x"), Other},
		{"weak by now", header(etag, `"a"`), header(etag, `W/"a"`), Other},
		{"a tag on one side", header(etag, `"a"`), header(modified, "x"), Unclear},
		{"the same date", header(modified, "x"), header(modified, "x"), Same},
		{"another date", header(etag, `"a"`, modified, "x"), header(etag, `"a"`, modified, "y"), Other},
		{"the same length", header(length, "5"), header(length, "5"), Unclear},
		{"another length", header(length, "5", etag, `"a"`), header(length, "6", etag, `"a"`), Other},
		{"a length of nothing", header(length, "5", etag, `"a"`), header(length, "0", etag, `"a"`), Same},
		{"no length", header(length, "5", etag, `"a"`), header(etag, `"a"`), Same},
		{"two tags", header(etag, `"a"`), header(etag, `"a"`, etag, `"b"`), Unclear},
		{"encoder's suffix", header(etag, `"a-gzip"`, length, "5", coding, "gzip"), header(etag, `"a"`, length, "9"), Same},
		{"encoder's suffix, another tag", header(etag, `"a-gzip"`, coding, "gzip"), header(etag, `"b"`), Other},
		{"another length in the same coding", header(length, "5", coding, "gzip"), header(length, "9", coding, "gzip"), Other},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := CompareHead(tt.stored, tt.head); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
