package delivery

import (
	"net/http"
	"net/http/httptest"
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
		status int
		body   string
		broken bool
	}{
		"the same":       {200, "hello, world", false},
		"other bytes":    {200, "hellO, world", true},
		"another status": {404, "hello, world", true},
		"less":           {200, "hel", true},
	} {
		t.Run(name, func(t *testing.T) {
			e, why := store.NewEntry(200, http.Header{}, http.Header{}, rfc9111.Freshness{Received: time.Now()}, time.Now())
			if why != rfc9111.None {
				t.Fatal(why)
			}
			sent := NewSent()
			sent.begin(0)
			sent.add([]byte("hello"))
			client := httptest.NewRecorder()
			s := NewResumer(client, e, sent)
			_ = s.Run(func(w http.ResponseWriter, _ *http.Request) error {
				w.WriteHeader(test.status)
				for i := range len(test.body) { // as a handler does that does not look at errors
					_, _ = w.Write([]byte{test.body[i]})
					_ = http.NewResponseController(w).Flush()
				}
				return nil
			}, httptest.NewRequest(http.MethodGet, "/", nil))
			want := ", world"
			if test.broken {
				want = ""
			}
			if s.Broken() != test.broken || client.Body.String() != want {
				t.Errorf("broken: %v, the client gets %q", s.Broken(), client.Body)
			}
		})
	}
}
