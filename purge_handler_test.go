package caddygroupcache

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// call sends a request to a purge API and returns the status, and what it tells.
func call(t *testing.T, method, url, body string, fields ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// newPurgeAPI runs a site with routes that purge.
func newPurgeAPI(t *testing.T) testSite {
	s := newSite(t)
	err := load(t, fmt.Sprintf(`{
		admin off
		auto_https off
		persist_config off
		storage file_system %q
	}
	:%s {
		bind 127.0.0.1
		basic_auth /api/basic {
			bob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
		}
		groupcache
		groupcache_purge /api/basic {
			authenticated
		}
		groupcache_purge /api/inside {
			authenticated
		}
		groupcache_purge /api/token {
			group default
			token %s
		}
		groupcache_purge /api/far {
			from 192.0.2.1
		}
		reverse_proxy %s
	}`, s.storage, s.front, purgeToken, s.upstream))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPurgeAPIOfASite(t *testing.T) {
	s := newPurgeAPI(t)
	const bearer, all = "Bearer " + purgeToken, `{"all": true}`
	page := s.url("/page")
	for _, tt := range []struct {
		name, method, path, body string
		fields                   []string
		status                   int
		tells                    string
	}{
		{"token, a URL", "POST", "/api/token", `{"urls": ["` + page + `"]}`, []string{"Authorization", bearer}, 200, `"acknowledged":true`},
		{"token, a prefix", "POST", "/api/token", `{"prefixes": ["` + s.url("/pa") + `"], "soft": false}`, []string{"Authorization", bearer}, 200, "nodes"},
		{"token, everything in its group", "POST", "/api/token", all, []string{"Authorization", bearer}, 200, "nodes"},
		{"token, another group", "POST", "/api/token", `{"all": true, "group": "other"}`, []string{"Authorization", bearer}, 400, "only"},
		{"token, nothing", "POST", "/api/token", `{}`, []string{"Authorization", bearer}, 400, "nothing is named"},
		{"token, a misspelt field", "POST", "/api/token", `{"al": true}`, []string{"Authorization", bearer}, 400, "unknown field"},
		{"token, by GET", "GET", "/api/token", "", []string{"Authorization", bearer}, 405, "POST"},
		{"token, a browser on another site", "POST", "/api/token", all, []string{"Authorization", bearer, "Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"somebody else authenticates", "POST", "/api/inside", all, nil, 200, "nodes"},
		{"no token", "POST", "/api/token", all, nil, 403, ""},
		{"no password", "POST", "/api/basic", all, nil, 401, ""},
		{"from elsewhere", "POST", "/api/far", all, nil, 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fetchURL(t, page)
			before, _ := fetchURL(t, page)
			status, told := call(t, tt.method, s.url(tt.path), tt.body, tt.fields...)
			if status != tt.status || !strings.Contains(told, tt.tells) || status != 401 && status != 403 && !json.Valid([]byte(told)) {
				t.Errorf("%d %s", status, told)
			}
			if after, _ := fetchURL(t, page); (after != before) != (tt.status == 200) {
				t.Errorf("the page is %q, and was %q", after, before)
			}
		})
	}
}

// TestPurgeAPINeedsSomebodyToAsk: JSON has no Caddyfile's check before it.
func TestPurgeAPINeedsSomebodyToAsk(t *testing.T) {
	for options, want := range map[string]string{
		``:                                   "authenticated",
		`, "authenticated": false`:           "authenticated",
		`, "authenticated": true`:            "",
		`, "from": ["nowhere"]`:              "nowhere",
		`, "from": ["::1"]`:                  "",
		`, "tokens": ["{env.NO_SUCH_NAME}"]`: "NO_SUCH_NAME",
	} {
		storage := caddyconfig.JSON(t.TempDir(), nil)
		config := new(caddy.Config)
		text := fmt.Sprintf(`{"storage": {"module": "file_system", "root": %s}, "apps": {"http": {"servers": {"s": {"listen": [":8080"], "routes": [{"handle": [{"handler": "groupcache_purge"%s}]}]}}}}}`, storage, options)
		if err := json.Unmarshal([]byte(text), config); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(config); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", options, err)
		}
	}
}
