package rfc9111

import (
	"net/http"
	"testing"
)

func TestTakesCodings(t *testing.T) {
	for _, tt := range []struct {
		accept, coding string
		want           bool
	}{
		{"", "", true},
		{"", "identity", true},
		{"identity", "identity, ", true},
		{"", "gzip", false}, // see TakesCodings
		{"identity", "gzip", false},
		{"gzip", "gzip", true},
		{"GZip;Q=0.5", "gzip", true},
		{"gzip;q=0", "gzip", false},
		{"gzip;q=0, *", "gzip", false},
		{"*", "zstd", true},
		{"br, *;q=0", "zstd", false},
		{"x-gzip", "gzip", true},
		{"gzip", "X-GZIP", true},
		{"gzip", "gzip, br", false},
		{"br, gzip", "gzip, br", true},
		{"gzipped", "gzip", false},
		{"", "unheard-of", true},
	} {
		request, response := make(http.Header), make(http.Header)
		if tt.accept != "" {
			request.Set("Accept-Encoding", tt.accept)
		}
		if tt.coding != "" {
			response.Set("Content-Encoding", tt.coding)
		}
		if got := TakesCodings(request, response); got != tt.want {
			t.Errorf("Accept-Encoding %q, Content-Encoding %q: %v", tt.accept, tt.coding, got)
		}
	}
}

func TestPartOfCompressibleIsApart(t *testing.T) {
	for mediaType, apart := range map[string]bool{
		"text/html; charset=utf-8": true, "Text/CSV": true, "application/json": true, "application/ld+json": true, "image/svg+xml": true, "application/wasm": true,
		"": false, "video/mp4": false, "application/octet-stream": false, "image/png": false, "application/zip": false,
	} {
		h := Apart(header("Content-Type", mediaType))
		names, _ := VaryNames(h)
		if got := len(names) == 2; got != apart {
			t.Errorf("%q: varies by %v", mediaType, names)
		}
	}
	for _, h := range []http.Header{
		header("Content-Type", "text/html", "Content-Encoding", "gzip"),
		header("Content-Type", "text/html", "Vary", "*"),
	} {
		if got := Apart(h); len(got["Vary"]) != len(h["Vary"]) {
			t.Errorf("%v: %v", h, got["Vary"])
		}
	}
}

func TestRangeSelectsByBeingThere(t *testing.T) {
	names := []string{"Accept-Encoding", "Range"}
	a, b := Selecting(names, header("Range", "bytes=1-2")), Selecting(names, header("Range", "bytes=7-"))
	if none := Selecting(names, header()); a != b || a == none {
		t.Errorf("%q, %q, none: %q", a, b, none)
	}
}
