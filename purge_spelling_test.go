package caddygroupcache

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// spelled are spellings of one URL: as people write it and some clients send it, as
// browsers send it, and as some applications write it into their pages.
var spelled = []string{
	"http://a.test/caf\u00e9/\"1\"?q=\u00e9",
	"http://a.test/caf%C3%A9/%221%22?q=%C3%A9",
	"http://a.test/caf%c3%a9/%221%22?q=%c3%a9",
}

// TestURLIsPurgedHoweverItIsSpelled: a purge drops a response whichever spelling of its URL
// the client has asked for, and whichever the purge names.
func TestURLIsPurgedHoweverItIsSpelled(t *testing.T) {
	const token = "Bearer " + purgeToken
	inBand := func(method string) func(*testing.T, *bubble, string) int {
		return func(t *testing.T, b *bubble, u string) int {
			return purgeBy(t, b.nodes[1].handler, method, u, "Authorization", token).Code
		}
	}
	api := func(name string) func(*testing.T, *bubble, string) int {
		return func(t *testing.T, b *bubble, u string) int {
			request, err := json.Marshal(map[string][]string{name: {u}})
			if err != nil {
				t.Fatal(err)
			}
			code, _ := b.nodes[1].purge(t, string(request))
			return code
		}
	}
	for way, purge := range map[string]func(*testing.T, *bubble, string) int{
		"urls": api("urls"), "prefixes": api("prefixes"), "PURGE": inBand("PURGE"), "BAN": inBand("BAN"),
	} {
		for _, named := range spelled {
			t.Run(way+" "+named, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(t, 2, withPurge(t, func(p *InBandPurge) { p.Methods = []string{"PURGE", "BAN"} }))
					var calls atomic.Int64
					all := func() {
						for _, m := range b.nodes {
							for _, u := range spelled {
								m.get(t, fixed(&calls, "page", "Cache-Control", "max-age=60"), u)
							}
						}
					}
					if all(); calls.Load() != int64(len(spelled)) {
						t.Fatalf("%d fetches", calls.Load())
					}
					if code := purge(t, b, named); code != http.StatusOK {
						t.Fatal(code)
					}
					if all(); calls.Load() != int64(2*len(spelled)) {
						t.Errorf("%d fetches after the purge", calls.Load()-int64(len(spelled)))
					}
				})
			})
		}
	}
}

// TestExplainSpeaksOfWhatBrowsersSend: a URL with letters beyond ASCII is explained as a
// browser asks for it.
func TestExplainSpeaksOfWhatBrowsersSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 1, nil)
		var calls atomic.Int64
		b.nodes[0].get(t, fixed(&calls, "page", "Cache-Control", "max-age=60"), spelled[1])
		e, err := b.nodes[0].process.explain(t.Context(), http.MethodGet, spelled[0], "", nil)
		if err != nil || e.Groups[0].Verdict != "hit" {
			t.Errorf("%v: %+v", err, e.Groups)
		}
	})
}
