package caddygroupcache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// load makes a Caddyfile the running config of this process, as a reload does.
func load(t *testing.T, caddyfile string) error {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	err = caddy.Load(adapted, true)
	poll(t, "the listeners of the config before are closed", harness.OneListenerEach)
	return err
}

// A testSite is a cache in front of an upstream, which answers everything with
// something new. That is no part of the config, because a server that is reloaded
// may refuse a connection that it has not accepted.
type testSite struct{ front, upstream, storage string }

func newSite(t *testing.T) testSite {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, rand.Text()) // a client that is gone needs no error
	}))
	t.Cleanup(upstream.Close)
	return testSite{freePort(t), upstream.Listener.Addr().String(), t.TempDir()}
}

func (s testSite) url(path string) string { return "http://127.0.0.1:" + s.front + path }

// config returns a Caddyfile with the given global options of groupcache. Its
// responses carry header.
func (s testSite) config(global, header string) string {
	return fmt.Sprintf(`{
		admin off
		auto_https off
		persist_config off
		storage file_system %q
		metrics
		groupcache {
			%s
		}
	}
	:%s {
		bind 127.0.0.1
		handle /metrics {
			metrics
		}
		header X-Config %s
		groupcache
		reverse_proxy %s
	}`, s.storage, global, s.front, header, s.upstream)
}

func freePort(t *testing.T) string {
	t.Helper()
	free, release, err := harness.Tests.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	_, port, _ := net.SplitHostPort(free[0])
	return port
}

// fetchURL asks again when there was no answer at all: a connection that the listener of
// the config before has just taken is closed, whatever the handlers are.
func fetchURL(t *testing.T, url string) (body string, header http.Header) {
	t.Helper()
	unanswered := func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) }
	resp, err := http.Get(url)
	for deadline := time.Now().Add(10 * time.Second); unanswered(err) && time.Now().Before(deadline); {
		resp, err = http.Get(url)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), resp.Header
}

// series returns what a registry has of ours: the values of counters and the
// counts of histograms, by name and labels.
func series(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather() // fails if there is one twice
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "caddy_groupcache_") {
			continue
		}
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			switch {
			case m.GetCounter() != nil:
				all[name] = m.GetCounter().GetValue()
			case m.GetHistogram() != nil:
				all[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return all
}
