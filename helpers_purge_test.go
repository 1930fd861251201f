package caddygroupcache

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A shop is an upstream of some pages with tags. It counts the requests for each.
type shop struct {
	mu      sync.Mutex // guards below
	asked   map[string]int
	control string
}

func (s *shop) handler() caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		s.mu.Lock()
		s.asked[r.URL.String()]++
		n := s.asked[r.URL.String()]
		s.mu.Unlock()
		control := s.control
		if control == "" {
			control = "max-age=3600"
		}
		page := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		w.Header().Set("Cache-Control", control)
		w.Header().Set("Surrogate-Key", "all page-"+page+" even-"+fmt.Sprint(len(page)%2 == 0))
		_, err := fmt.Fprintf(w, "%s %d", r.URL, n)
		return err
	}
}

func (s *shop) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, n := range s.asked {
		all += n
	}
	return all
}

// pages are 30 URLs: two hosts, three paths on each, queries.
func pages() (urls []string) {
	for _, host := range []string{"a.test", "b.a.test:8080"} {
		for _, dir := range []string{"shop", "shopping", "shop/x"} {
			for i := range 5 {
				urls = append(urls, fmt.Sprintf("http://%s/%s/%d?q=%d", host, dir, i, i))
			}
		}
	}
	return urls
}

// get asks a node for a URL, a little later than what happened before.
func (m *bubbleNode) get(t testing.TB, up caddyhttp.HandlerFunc, url string, fields ...string) (body, status string) {
	t.Helper()
	time.Sleep(time.Microsecond)
	w := do(m.handler, up, request(t.Context(), url, fields...))
	if w.Code != 200 {
		t.Errorf("%s: %s: %d", m.Name, url, w.Code)
	}
	return w.Body.String(), w.Header().Get("Cache-Status")
}

// freeze has nobody reach a node, which does not note that it runs either.
func (b *bubble) freeze(m *bubbleNode, frozen bool) {
	for _, o := range b.nodes {
		if o != m {
			b.net.part(o.addr.Addr, m.addr.Addr, frozen)
		}
	}
}

const purgeToken = "correct-horse-battery-staple"

func withPurge(t *testing.T, set func(*InBandPurge)) func(*Handler) {
	return func(h *Handler) {
		h.Purge = &InBandPurge{Tokens: []string{purgeToken}}
		if set != nil {
			set(h.Purge)
		}
		var err error
		if h.purgers, err = new(App).sendersOf(caddy.NewReplacer(), h.Purge.Tokens, h.Purge.From); err != nil {
			t.Fatal(err)
		}
	}
}
