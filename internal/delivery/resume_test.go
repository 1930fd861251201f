package delivery

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestAnotherResponseIsAnError and no panic: a handler may write from a goroutine of its
// own, such as the timer by which reverse_proxy flushes, where a panic would end the
// process. The client gets none of its bytes.
func TestAnotherResponseIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		sent   string // of the body
		status int
		user   string // that the header names
		body   string
		broken bool
	}{
		"the same":              {"hello", 200, "a", "hello, world", false},
		"other bytes":           {"hello", 200, "a", "hellO, world", true},
		"another status":        {"hello", 404, "a", "hello, world", true},
		"less":                  {"hello", 200, "a", "hel", true},
		"the same header":       {"", 200, "a", "hello, world", false},
		"another user's header": {"", 200, "b", "hello, world", true},
	} {
		t.Run(name, func(t *testing.T) {
			e, why := store.NewEntry(200, http.Header{"X-User": {"a"}}, http.Header{}, rfc9111.Freshness{Received: time.Now()}, time.Now())
			if why != rfc9111.None {
				t.Fatal(why)
			}
			sent := NewSent()
			sent.begin(0)
			sent.add([]byte(test.sent))
			client := httptest.NewRecorder()
			s := NewResumer(client, e, sent)
			_ = s.Run(func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("X-User", test.user)
				w.WriteHeader(test.status)
				for i := range len(test.body) { // as a handler does that does not look at errors
					_, _ = w.Write([]byte{test.body[i]})
					_ = http.NewResponseController(w).Flush()
				}
				return nil
			}, httptest.NewRequest(http.MethodGet, "/", nil))
			want := strings.TrimPrefix("hello, world", test.sent)
			if test.broken {
				want = ""
			}
			if s.Broken() != test.broken || client.Body.String() != want {
				t.Errorf("broken: %v, the client gets %q", s.Broken(), client.Body)
			}
		})
	}
}
