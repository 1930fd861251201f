package store

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// usual are the fields of a response as many applications send them.
var usual = []string{
	"Cache-Control", "public, max-age=86400", "Content-Language", "en", "Content-Length", "100",
	"Content-Type", "text/html; charset=utf-8", "Date", "Sun, 22 Nov 2026 12:00:00 GMT",
	"Etag", `"33a64df551425fcc55e4d42a148795d9f25f89d4"`, "Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT",
	"Referrer-Policy", "same-origin", "Server", "origin/1.0", "Strict-Transport-Security", "max-age=31536000",
	"Vary", "Accept-Encoding", "Via", "1.1 Caddy", "X-Content-Type-Options", "nosniff", "X-Frame-Options", "DENY",
	"X-Request-Time", "0.013",
}

// What cache_size bounds is what is counted, so that has to be what is taken:
// here, for all that could be taken for little.
func TestWhatIsCountedIsWhatItTakes(t *testing.T) {
	gzip := http.Header{"Accept-Encoding": {"gzip"}}
	put := func(s *Store, space *Namespace, n int, e *Entry, size int) {
		e.SetLabels(fmt.Sprintf("http://127.0.0.1:8080/100/%d", n), e.Tags(), nil)
		s.Commit(space, key(n), e, make([]byte, size))
	}
	for _, tt := range []struct {
		name  string
		count int
		store func(s *Store, space *Namespace, n int)
	}{
		{"one byte", 20_000, func(s *Store, space *Namespace, n int) {
			put(s, space, n, entry(t, now, nil), 1)
		}},
		{"usual fields", 20_000, func(s *Store, space *Namespace, n int) {
			put(s, space, n, entry(t, now, gzip, usual...), 100)
		}},
		{"many fields", 2_000, func(s *Store, space *Namespace, n int) {
			var fields []string
			for i := range 200 {
				fields = append(fields, fmt.Sprint("X-Field-", i), strings.Repeat("v", i%10))
			}
			put(s, space, n, entry(t, now, nil, fields...), 1)
		}},
		{"other names each", 2_000, func(s *Store, space *Namespace, n int) {
			var fields []string
			for i := range 50 {
				fields = append(fields, fmt.Sprint("X-Field-", i, "-", n), "v")
			}
			put(s, space, n, entry(t, now, nil, fields...), 1)
		}},
		{"many variants", 20_000, func(s *Store, space *Namespace, n int) {
			e := entry(t, now, http.Header{"User-Agent": {fmt.Sprint(n)}}, "Vary", "User-Agent")
			e.SetLabels("http://127.0.0.1:8080/", nil, nil)
			s.Commit(space, key(n/MaxVariants), e, []byte("a"))
		}},
		{"many codings", 20_000, func(s *Store, space *Namespace, n int) {
			put(s, space, n, entry(t, now, http.Header{"Accept-Encoding": {fmt.Sprint("x", n)}}, "Vary", "Accept-Encoding"), 1)
		}},
		{"many tags", 2_000, func(s *Store, space *Namespace, n int) {
			e := entry(t, now, nil)
			var tags []string
			for i := range 50 {
				tags = append(tags, fmt.Sprint("tag-", i, "-", n))
			}
			e.SetLabels("", tags, nil)
			put(s, space, n, e, 1)
		}},
		{"bodies in the Group", 20_000, func(s *Store, space *Namespace, n int) {
			put(s, space, n, entry(t, now, gzip, usual...), 600)
		}},
		{"nothing but that it is uncacheable", 20_000, func(s *Store, space *Namespace, n int) {
			s.MarkUncacheable(space, key(n), rfc9111.Private, now.Add(time.Hour))
		}},
		{"names of fields that tell variants apart", 20_000, func(s *Store, space *Namespace, n int) {
			s.LearnVary(space, key(n), []string{fmt.Sprint("X-", n)})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, space := newStore(t, 64<<20, 64<<20)
			before := heap()
			for n := range tt.count {
				tt.store(s, space, n)
			}
			taken := heap() - before
			u := s.Usage()
			counted := u.IndexBytes + u.Main.Bytes
			each := func(bytes int64) int64 { return bytes / int64(tt.count) }
			t.Logf("takes %d bytes each, counted %d", each(taken), each(counted))
			if ratio := float64(counted) / float64(taken); ratio < 0.9 || ratio > 1.15 {
				t.Errorf("takes %d bytes each, counted %d", each(taken), each(counted))
			}
			runtime.KeepAlive(s)
		})
	}
}
