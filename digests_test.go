package caddygroupcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// digestOf is a value of the fields of RFC 9530.
func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// checkDigests looks whether the digests of a response are those of its content
// and of the representation. A content digest may be missing.
func checkDigests(t *testing.T, header http.Header, content, representation []byte) {
	t.Helper()
	if lines := header["Content-Digest"]; len(lines) > 0 && !slices.Equal(lines, []string{digestOf(content)}) {
		t.Errorf("Content-Digest %q, want that of the content, or none", lines)
	}
	for _, name := range []string{"Repr-Digest", "Unencoded-Digest"} {
		if lines := header[name]; !slices.Equal(lines, []string{digestOf(representation)}) {
			t.Errorf("%s %q, want that of the whole", name, lines)
		}
	}
}

// The representation, the HEAD and the range of RFC 9530 appendices B.1 to B.3.
func TestDigestsAreOfTheContentThatIsSent(t *testing.T) {
	const body = "{\"hello\": \"world\"}\n"
	digest := digestOf([]byte(body))
	if digest != "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:" {
		t.Fatalf("%s", digest)
	}
	var calls atomic.Int64
	up := fixed(&calls, body, "Cache-Control", "max-age=60", "Etag", `"1"`, "Content-Digest", digest, "Repr-Digest", digest, "Unencoded-Digest", digest)
	type step struct {
		name, method string
		fields       []string
		want         int
	}
	steps := []step{
		{"the whole", "GET", nil, 200},
		{"a part", "GET", []string{"Range", "bytes=10-18"}, 206},
		{"the last bytes", "GET", []string{"Range", "bytes=-4"}, 206},
		{"several parts", "GET", []string{"Range", "bytes=0-1,4-5"}, 206},
		{"no part of it", "GET", []string{"Range", "bytes=100-"}, 416},
		{"a part of another one", "GET", []string{"Range", "bytes=10-18", "If-Range", `"2"`}, 200},
		{"HEAD", "HEAD", nil, 200},
		{"a condition", "GET", []string{"If-None-Match", `"1"`}, 304},
	}
	for _, nodes := range []int{1, 3} {
		for _, first := range steps {
			if first.method == http.MethodHead || first.want == 416 || first.name == "the last bytes" {
				continue // that is the upstream's answer, or asks it for a part
			}
			t.Run(fmt.Sprintf("nodes: %d, %s first", nodes, first.name), func(t *testing.T) {
				c := newCluster(t, nodes)
				calls.Store(0)
				for i, s := range append([]step{first}, steps...) {
					r := request(t.Context(), "/a", s.fields...)
					r.Method = s.method
					w := do(c.handlers[i%nodes], up, r)
					want := s.want
					if s.name == "several parts" && i == 0 {
						want = 200 // of what is coming in
					}
					if w.Code != want {
						t.Errorf("%s: %d, want %d", s.name, w.Code, want)
					}
					checkDigests(t, w.Header(), w.Body.Bytes(), []byte(body))
					if want == 200 && s.method == "GET" && w.Header().Get("Content-Digest") == "" {
						t.Errorf("%s: no Content-Digest", s.name)
					}
				}
				if calls.Load() != 1 {
					t.Errorf("%d fetches", calls.Load())
				}
			})
		}
	}
}

func TestDigestsOfAWholeThatIsPutTogether(t *testing.T) {
	body := []byte(strings.Repeat("0123456789", 250_000))
	part := func(a *partAnswer) {
		a.header.Set("Content-Digest", digestOf(a.body))
		a.header.Set("Repr-Digest", digestOf(body))
		a.header.Set("Unencoded-Digest", digestOf(body))
	}
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes)
		target := c.target(0)
		up := caddyhttp.HandlerFunc((&answers{body: body, change: part}).ServeHTTP)
		for i, set := range []string{"bytes=-100", "bytes=2000000-2000009", "bytes=5-9", ""} {
			r := request(t.Context(), target)
			if set != "" {
				r.Header.Set("Range", set)
			}
			w := do(c.handlers[i%nodes], up, r)
			if (w.Code == 206) != (set != "") || set == "" && !bytes.Equal(w.Body.Bytes(), body) {
				t.Errorf("nodes: %d, %q: %d, %d bytes", nodes, set, w.Code, w.Body.Len())
			}
			checkDigests(t, w.Header(), w.Body.Bytes(), body)
		}
	}
}

func TestDigestsThatCameWithAValidation(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	old, other := digestOf([]byte("hello")), digestOf([]byte("other"))
	do(h, fixed(&calls, "hello", "Cache-Control", "max-age=0", "Etag", `"1"`, "Content-Digest", old, "Repr-Digest", old, "Unencoded-Digest", old), request(t.Context(), "/a"))
	w := do(h, func(w http.ResponseWriter, _ *http.Request) error {
		for _, name := range []string{"Content-Digest", "Repr-Digest", "Unencoded-Digest"} {
			w.Header().Set(name, other) // as a server may say that compresses on the way
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}, request(t.Context(), "/a"))
	if w.Code != 200 || w.Body.String() != "hello" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	checkDigests(t, w.Header(), w.Body.Bytes(), []byte("hello"))
}
