package rfc9111

import (
	"net/http"
	"testing"
)

func TestStoredHeader(t *testing.T) {
	tests := []struct {
		name string
		h    http.Header
		want http.Header
	}{
		{"nil", nil, header()},
		{"kept", header("Etag", `"a"`, "Link", "a", "Link", "z", "Vary", ""), header("Etag", `"a"`, "Link", "a", "Link", "z", "Vary", "")},
		{"hop by hop", header("Connection", "close", "Keep-Alive", "1", "Te", "x", "Trailer", "x", "Transfer-Encoding", "chunked",
			"Upgrade", "x", "Proxy-Authenticate", "x", "Proxy-Authorization", "x", "Proxy-Authentication-Info", "x",
			"Proxy-Connection", "x", "Age", "5", "X", "y"), header("X", "y")},
		{"not quite hop by hop", header("Proxyish", "x", "Upgrade-Insecure", "y"), header("Proxyish", "x", "Upgrade-Insecure", "y")},
		{"cookie", header("Set-Cookie", "a=b", "X", "y"), header("X", "y")},
		{"what clears the site", header("Clear-Site-Data", `"*"`, "X", "y"), header("X", "y")},
		{"what only looks so", header("Clear-Site-Data", "cookies", "X", "y"), header("Clear-Site-Data", "cookies", "X", "y")},
		{"named by connection", header("Connection", "x-a", "Connection", "close , X-B", "X-A", "1", "X-B", "2", "X-C", "3"), header("X-C", "3")},
		{"connection cannot name vary", header("Connection", "vary, cache-control", "Vary", "a", "Cache-Control", "no-cache"),
			header("Vary", "a", "Cache-Control", "no-cache")},
		{"private and no-cache fields", header("Cache-Control", `private="x-a", no-cache="X-B, x-c"`, "X-A", "1", "X-B", "2", "X-C", "3", "X-D", "4"),
			header("Cache-Control", `private="x-a", no-cache="X-B, x-c"`, "X-D", "4")},
		{"line breaks", header("X-A", "a\r\nb", "X-B", "a\rb", "X-C", "a\nb", "X-D", "a\x00b", "X-E", "ok", "X-F", "ok", "X-F", "\n"),
			header("X-E", "ok")},
		{"names that are none", http.Header{"A b": {"1"}, "": {"2"}, "X\n": {"3"}, "Trailer:X": {"4"}, "Ok": {"5"}}, header("Ok", "5")},
		{"names in lower case", http.Header{"connection": {"x-a"}, "x-a": {"1"}, "age": {"2"}, "x-b": {"3"}}, header("X-B", "3")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			equalHeader(t, StoredHeader(tt.h, Options{}), tt.want)
		})
	}
	h := header("X", "a")
	stored := StoredHeader(h, Options{})
	stored["Y"] = []string{"b"}
	delete(stored, "X")
	equalHeader(t, h, header("X", "a")) // the map is another one
}

func TestRefresh(t *testing.T) {
	tests := []struct {
		name        string
		stored      http.Header
		notModified http.Header
		want        http.Header
	}{
		{"both nil", nil, nil, header()},
		{"nothing stored", nil, header("X", "1"), header("X", "1")},
		{"replaced, added, kept", header("X", "1", "X", "2", "Y", "3"), header("X", "4", "Z", "5"), header("X", "4", "Y", "3", "Z", "5")},
		{"lifetime", header("Cache-Control", "max-age=1"), header("Cache-Control", "max-age=2", "Expires", "0"), header("Cache-Control", "max-age=2", "Expires", "0")},
		{"what describes the body", header("Content-Length", "5", "Content-Encoding", "br", "Content-Type", "a/b", "Etag", `W/"a"`),
			header("Content-Length", "0", "Content-Encoding", "gzip", "Content-Type", "text/html", "Content-Range", "x", "Etag", `"a"`),
			header("Content-Length", "5", "Content-Encoding", "br", "Content-Type", "a/b", "Etag", `W/"a"`, "Vary", "Accept-Encoding")},
		{"another Vary of a coded response", header("Content-Encoding", "br", "Vary", "Accept-Encoding"), header("Vary", "Origin"), header("Content-Encoding", "br", "Vary", "Origin", "Vary", "Accept-Encoding")},
		{"less Vary", header("Vary", "Accept-Encoding, Origin"), header("Vary", "Origin"), header("Vary", "Origin", "Vary", "Accept-Encoding")},
		{"another Vary of a part", header("Vary", "Accept-Encoding", "Vary", "Range"), header("Vary", "Origin"), header("Vary", "Origin", "Vary", "Accept-Encoding", "Vary", "Range")},
		{"what is not stored", header("X", "1"), header("Set-Cookie", "a=b", "Clear-Site-Data", `"*"`, "Age", "4", "Connection", "x", "Transfer-Encoding", "chunked"), header("X", "1")},
		{"now private", header("X", "1", "Y", "2"), header("Cache-Control", `private="x"`), header("Y", "2", "Cache-Control", `private="x"`)},
		{"private before", header("Cache-Control", `private="x"`), header("X", "1"), header("Cache-Control", `private="x"`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.stored.Clone()
			equalHeader(t, Refresh(tt.stored, tt.notModified, Options{}), tt.want)
			equalHeader(t, tt.stored, before)
		})
	}
}

func TestStorableField(t *testing.T) {
	for name, want := range map[string]bool{
		"X-A": true, "Etag": true, "Set-Cookie": true,
		"Connection": false, "Age": false, "Proxy-Status": false, "x-a": false, "X A": false, "": false, "Transfer-Encoding": false,
	} {
		if got := StorableField(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestCookiesAreStoredIfTheOptionsSaySo(t *testing.T) {
	o := Options{StoreSetCookie: true}
	stored := StoredHeader(header("Set-Cookie", "a=b", "X", "y"), o)
	equalHeader(t, stored, header("Set-Cookie", "a=b", "X", "y"))
	equalHeader(t, Refresh(stored, header("Set-Cookie", "a=c"), o), header("Set-Cookie", "a=c", "X", "y"))
	equalHeader(t, Refresh(stored, header("Set-Cookie", "a=c"), Options{}), header("X", "y"))
	private := header("Cache-Control", `private="set-cookie"`, "Set-Cookie", "a=b")
	equalHeader(t, StoredHeader(private, o), header("Cache-Control", `private="set-cookie"`))
}

func TestNamesFields(t *testing.T) {
	for value, want := range map[string]bool{
		"": false, "close": false, "Keep-Alive, TE": false, "Upgrade, HTTP2-Settings": false, ",": false,
		"Cookie": true, "close, X-A": true, "close,\tauthorization": true, "cache-control": true, "\"close\"": true,
	} {
		if got := NamesFields([]string{"keep-alive", value}); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func BenchmarkStoredHeader(b *testing.B) {
	h := header("Cache-Control", "public, max-age=60", "Vary", "Accept-Encoding", "Etag", `"a"`,
		"Date", date(noon), "Content-Type", "text/html", "Last-Modified", date(noon), "Connection", "close")
	b.ReportAllocs()
	for b.Loop() {
		StoredHeader(h, Options{})
	}
}
