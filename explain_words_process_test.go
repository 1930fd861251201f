//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestExplainIsShort: of many variants it tells how many, and by which values; and what a
// ttl would have to name.
func TestExplainIsShort(t *testing.T) {
	o := startOrigin(t, saying(200, "body", "Cache-Control", "max-age=600", "Vary", "Accept-Language, X-Kind"))
	c := startCluster(t, 1, o, "ttl 10m")
	for i := range 33 {
		c[0].get("/a", "Accept-Language", []string{"de", "en", "fr"}[i%3], "X-Kind", fmt.Sprint(i))
	}
	words := c[0].explain("/a", "header", "Accept-Language: de", "header", "X-Kind: 30").Groups[0].Words
	all := strings.Join(words, "\n")
	if len(words) > 5 || !strings.Contains(all, "32 variants by Accept-Language, X-Kind, 32 of them fresh") || !strings.Contains(all, "for Accept-Language: ") ||
		!strings.Contains(all, "Accept-Language: fr (11)") || !strings.Contains(all, "status 200, 4 bytes") {
		t.Errorf("%d lines: %s", len(words), all)
	}
	o.Config.Handler = saying(302, "", "Location", "/elsewhere")
	c[0].get("/b")
	if g := c[0].explain("/b").Groups[0]; g.Reason != "no-freshness" || !strings.Contains(g.Change, "ttl 10m 302") {
		t.Errorf("%s: %s", g.Reason, g.Change)
	}
}
