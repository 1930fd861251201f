//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestCallsToPeersAreTraced: with the tracing directive of Caddy and its console
// exporter, what a node asks of another one is a span of the client's request.
func TestCallsToPeersAreTraced(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	o := startOrigin(t, cached)
	c := newCluster(t, 2, o, patient)
	for _, p := range c {
		p.start()
		if code, answer := p.load(p.caddyfile("tracing")); code != 200 {
			t.Fatal(answer)
		}
	}
	c.awaitMembers()
	const path = "/traced"
	asker := c[0]
	if asker.explain(path).Groups[0].Owner == asker.name {
		asker = c[1]
	}
	asker.get(path).is(t, "the first", "body")
	asker.signal(syscall.SIGTERM) // it exports all that is left
	asker.awaitEnd()

	type span struct {
		Name        string
		SpanContext struct{ TraceID, SpanID string }
		Parent      struct{ SpanID string }
	}
	log, err := os.ReadFile(asker.logFile())
	if err != nil {
		t.Fatal(err)
	}
	spans := make(map[string]span)
	for line := range bytes.Lines(log) {
		var s span
		if json.Unmarshal(line, &s) == nil && s.SpanContext.TraceID != "" {
			spans[s.Name] = s
		}
		if strings.Contains(s.Name, path) {
			t.Errorf("a span is called %s", s.Name)
		}
	}
	fill := spans["groupcache fill"]
	for _, name := range []string{"groupcache lookup", "groupcache peer lookup", "groupcache peer publish"} {
		if s := spans[name]; fill.SpanContext.TraceID == "" || s.SpanContext.TraceID != fill.SpanContext.TraceID || s.Parent.SpanID != fill.Parent.SpanID {
			t.Errorf("%s is %+v, beside %+v", name, s, fill)
		}
	}
}
