package caddygroupcache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// purgeOver sends PURGE to a site over the network and returns the status.
func purgeOver(t *testing.T, url, forwarded string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "PURGE", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if forwarded != "" {
		r.Header.Set("X-Forwarded-For", forwarded)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// A client writes X-Forwarded-For, and proxies append to it.
func TestAForgedAddressDoesNotPurge(t *testing.T) {
	const forged, honest, direct = "10.0.0.9, 203.0.113.7", "203.0.113.7, 10.0.0.9", ""
	for _, tt := range []struct {
		name, servers, from, forwarded string
		want                           int
	}{
		{"no proxy, forged", "", "10.0.0.0/8", forged, 403},
		{"no proxy, its own address", "", "127.0.0.1", forged, 200},
		{"proxy, forged", "trusted_proxies static 127.0.0.1/32", "10.0.0.0/8", forged, 403},
		{"proxy, forged alone", "trusted_proxies static 127.0.0.1/32", "10.0.0.0/8", "10.0.0.9", 403},
		{"proxy that may itself, forged", "trusted_proxies static 127.0.0.1/32", "127.0.0.1", forged, 403},
		{"another proxy, direct", "trusted_proxies static 192.0.2.0/24", "127.0.0.1", direct, 200},
		{"strict, forged", "trusted_proxies static 127.0.0.1/32\n\t\t\ttrusted_proxies_strict", "10.0.0.0/8", forged, 403},
		{"strict, honest", "trusted_proxies static 127.0.0.1/32\n\t\t\ttrusted_proxies_strict", "10.0.0.0/8", honest, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := freePort(t)
			err := load(t, fmt.Sprintf(`{
		admin off
		auto_https off
		persist_config off
		storage file_system %q
		servers {
			%s
		}
	}
	:%s {
		bind 127.0.0.1
		groupcache {
			purge {
				from %s
			}
		}
		respond "hello"
	}`, t.TempDir(), tt.servers, port, tt.from))
			if err != nil {
				t.Fatal(err)
			}
			if got := purgeOver(t, "http://127.0.0.1:"+port+"/", tt.forwarded); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

func TestRefusedPurgesAreLoggedAndCounted(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	n := newLoneNode(t)
	h := newHandler(t, n, withPurge(t, nil))
	h.logger = zap.New(core)
	p := &process{node: n}
	h.denials = &p.denials
	send := func(client, token string) {
		r := request(t.Context(), "http://a.test/secret.*x", "Authorization", "Bearer "+token)
		r.Method, r.RemoteAddr = "PURGE", client+":1234"
		_ = h.ServeHTTP(httptest.NewRecorder(), r, fixed(new(atomic.Int64), "x"))
	}
	for range 5 {
		send("192.0.2.1", "wrong")
	}
	send("192.0.2.2", "wrong")
	send("192.0.2.3", purgeToken) // the URL is not understood
	var clients []string
	for _, line := range logs.All() {
		fields := line.ContextMap()
		clients = append(clients, fmt.Sprint(fields["client"], " ", fields["reason"]))
		if strings.Contains(fmt.Sprint(fields), "secret") {
			t.Errorf("the line has the URL: %v", fields)
		}
	}
	if got := strings.Join(clients, ", "); got != "192.0.2.1 forbidden, 192.0.2.2 forbidden, 192.0.2.3 not_understood" {
		t.Errorf("logged %s", got)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{p})
	counted := series(t, registry)
	for reason, want := range map[string]float64{"forbidden": 6, "not_understood": 1} {
		found := false
		for name, v := range counted {
			if strings.Contains(name, "purges_refused_total") && strings.Contains(name, reason) {
				found = v == want
			}
		}
		if !found {
			t.Errorf("%s is not %v in %v", reason, want, counted)
		}
	}
}

// What a handler alone can see of a request by way of a proxy.
func TestAddressByWayOfAProxy(t *testing.T) {
	for _, tt := range []struct {
		name    string
		proxied bool
		strict  int
		refused bool
	}{
		{"direct", false, 0, false},
		{"proxied", true, 0, true},
		{"strictly", true, 1, false},
	} {
		from := []string{"192.0.2.1"}
		allowed, err := new(App).sendersOf(caddy.NewReplacer(), nil, from)
		if err != nil {
			t.Fatal(err)
		}
		r := request(t.Context(), "http://a.test/")
		ctx := context.WithValue(r.Context(), caddyhttp.ServerCtxKey, &caddyhttp.Server{TrustedProxiesStrict: tt.strict})
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{caddyhttp.TrustedProxyVarKey: tt.proxied, caddyhttp.ClientIPVarKey: "192.0.2.1"})
		if got := whyForbidden(r.WithContext(ctx), allowed); (got != "") != tt.refused || tt.refused && !strings.Contains(got, "forged") {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}
