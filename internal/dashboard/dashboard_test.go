package dashboard

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestPage: one page that names nothing outside of itself, under a
// policy that lets in nothing else.
func TestPage(t *testing.T) {
	w := httptest.NewRecorder()
	if err := WritePage(w); err != nil {
		t.Fatal(err)
	}
	text := w.Body.String()
	for _, outside := range []string{`src=`, `@import`, `url(`, `<iframe`, `style="`, ` onclick`, ` onload`, `innerHTML`, `eval(`} {
		if strings.Contains(text, outside) {
			t.Errorf("the page has %s", outside)
		}
	}
	for _, address := range regexp.MustCompile(`(?:https?:)?//[a-z][^'" <]*`).FindAllString(text, -1) {
		if address != "http://www.w3.org/2000/svg" && !strings.HasPrefix(address, "https://www.example.com/") {
			t.Errorf("the page names %s", address)
		}
	}
	policy := w.Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy lacks %s: %s", part, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "47DEQpj8HBSa") { // the hash of nothing
		t.Errorf("the policy is lax: %s", policy)
	}
}

// TestGate: only who has the address gets through, for the cache's part only, and with
// nothing of the browser's request but what it asks for.
func TestGate(t *testing.T) {
	var got *http.Request
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("Access-Control-Allow-Origin", "*")
	}))
	defer admin.Close()
	g := NewGate("127.0.0.1:1", "admin.test", func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", admin.Listener.Addr().String())
	})
	own, foreign := "http://127.0.0.1:1", "http://evil.test"
	for _, tt := range []struct {
		name, method, url, origin string
		want                      int
	}{
		{"the page", "GET", g.URL(), "", 200},
		{"a purge of the page", "POST", g.URL() + "purge", own, 200},
		{"a purge of another site", "POST", g.URL() + "purge", foreign, 403},
		{"a purge of nobody", "POST", g.URL() + "purge", "null", 403},
		{"another method", "DELETE", g.URL(), "", 403},
		{"without the secret", "GET", own + "/groupcache/", "", 403},
		{"another host", "GET", strings.Replace(g.URL(), "127.0.0.1:1", "evil.test", 1), "", 403},
		{"the rest of the admin API", "GET", strings.Replace(g.URL(), "groupcache/", "config/", 1), "", 403},
		{"by a detour", "GET", g.URL() + "../config/", "", 403},
		{"by a hidden detour", "GET", g.URL() + "%2e%2e/config/", "", 403},
	} {
		got = nil
		r := httptest.NewRequest(tt.method, tt.url, nil)
		r.Header.Set("Cookie", "a=b")
		r.Header.Set("Content-Type", "application/json")
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != tt.want || (got != nil) != (tt.want == 200) {
			t.Errorf("%s: %d, passed on: %v", tt.name, w.Code, got != nil)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: other sites may read it", tt.name)
		}
		if got == nil {
			continue
		}
		if got.Host != "admin.test" || !strings.HasPrefix(got.URL.Path, "/groupcache/") || got.Header.Get("Origin") != "http://admin.test" ||
			got.Header.Get("Cookie") != "" || got.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: the admin endpoint gets %s %s %v", tt.name, got.Host, got.URL, got.Header)
		}
	}
}
