package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// slower is how much longer than its twin a site may take for one answer. It is
// meant to find requests that wait for something, not to measure.
const slower = 3 * time.Second

// A difference is between what the site and its twin have answered.
type difference struct {
	kind, text string
	badGateway bool // one of them is a 502
}

func differs(kind, format string, args ...any) *difference {
	return &difference{kind: kind, text: fmt.Sprintf(format, args...)}
}

// mayDiffer are the fields that a cache sets itself, and those that say how a
// body is framed; whether it is whole is compared by its bytes.
var mayDiffer = []string{"Age", "Date", "Cache-Status", "Content-Length", "Content-Range", "Accept-Ranges", "Connection"}

// wholes may differ on HEAD and Range besides, and when the cache has validated.
// encode sets them only when it codes a body; the cache asks for the whole, whose
// fields these are, and a 304 brings them too.
var wholes = []string{"Content-Encoding", "Etag", "Vary"}

// fieldsNotYet differ, but should not. An entry goes when that is mended.
var fieldsNotYet = map[string]string{
	"Server": "case 4: reverse_proxy deletes Caddy's own, which comes back on hits",
}

// selecting are the request fields that the script's identities come from.
var selecting = []string{"*", "cookie", "x-user", "x-geo", "x-forwarded-for", "remote-user", "authorization"}

var identity = regexp.MustCompile(`id=[a-z-]*;`)

// authenticates reports whether a request, or the one whose response the site has answered
// with, was a known user's.
func (c *composition) authenticates(r request, site *answer) bool {
	if c.any(func(e *element) bool { return e.auth && e.name != "basic_auth" }) {
		return true
	}
	return r.basic && (r.user == 0 || bytes.Contains(site.body, []byte("id="+users[0].name+";")))
}

// targeted returns the fields that speak to the cache, the most wanted first.
func (c *composition) targeted() []string {
	if c.any(func(e *element) bool { return e.name == "targeted option" }) {
		return []string{"X-Own-Control"}
	}
	return []string{"Groupcache-Cache-Control", "Cdn-Cache-Control", "Surrogate-Control"}
}

// stated returns the directives that a response has for the cache.
func (c *composition) stated(h http.Header) string {
	for _, name := range c.targeted() {
		if all := strings.Join(h.Values(name), ","); all != "" {
			return all
		}
	}
	return strings.Join(h.Values("Cache-Control"), ",")
}

// shareable reports whether a response to a GET or QUERY says, or the operator says for it
// by ttl, that another user may get it although an identity is in its body
// (RFC 9111 §3, §3.5). h is what the client of the twin saw.
func (c *composition) shareable(h http.Header, authenticated bool) bool {
	authenticated = authenticated && !c.any(func(e *element) bool { return e.open })
	ttl, forced := c.any(func(e *element) bool { return e.ttl }), c.any(func(e *element) bool { return e.forced })
	for _, field := range strings.Split(strings.ToLower(strings.Join(h.Values("Vary"), ",")), ",") {
		if slices.Contains(selecting, strings.TrimSpace(field)) {
			return false
		}
	}
	stated := make(map[string]bool)
	for _, directive := range strings.Split(strings.ToLower(c.stated(h)), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(directive), "=")
		stated[name] = true
	}
	switch {
	case stated["private"], stated["no-store"], stated["no-cache"] && !forced:
		return false
	case stated["public"], stated["s-maxage"], authenticated && stated["must-revalidate"]:
		return true
	case authenticated:
		return false
	}
	return stated["max-age"] || ttl
}

// compare returns how the site's answer differs from its twin's, or nil.
func (c *composition) compare(r request, site, twin *answer) *difference {
	if r.method == "PURGE" {
		if site.err == nil && site.status < 300 {
			return differs("purge", "a stranger's PURGE gets %d", site.status)
		}
		return nil
	}
	if site.took > twin.took+slower {
		return differs("slow", "%v, twin %v", site.took, twin.took)
	}
	if twin.err != nil {
		// A part that has come before the upstream broke off is whole, and a 304 has no body.
		if site.err == nil && site.status < 500 && site.status != 304 && r.rng == "" {
			return differs("broken", "whole %d, twin %v", site.status, twin.err)
		}
		return nil
	}
	if r.method == "HEAD" && c.has("broken") {
		return nil // the cache asks for the whole
	}
	if site.err != nil {
		return differs("failed", "%v, twin %d", site.err, twin.status)
	}
	if strings.Contains(r.directives, "only-if-cached") && site.status == http.StatusGatewayTimeout {
		return nil
	}
	share := (r.method == "GET" || r.method == "HEAD" || r.method == "QUERY") && c.shareable(twin.header, c.authenticates(r, site))
	if d := compareStatus(r, site, twin, share); d != nil || site.status == 304 || twin.status == 304 || site.status == 416 || twin.status == 416 {
		return d
	}
	if d := c.compareFields(r, site, twin, share); d != nil || r.method == "HEAD" {
		return d
	}
	return compareBodies(r, site, twin, share)
}

// compareStatus allows for what a cache may answer by itself: 304 to a condition,
// 206 and 416 to a range.
func compareStatus(r request, site, twin *answer, share bool) *difference {
	if r.conditional && site.status == 304 && twin.status == 200 && opaque(r.tag) != opaque(twin.header.Get("Etag")) && !share {
		return differs("condition", "304 (%s) to the tag %s, twin 200 with %s", site.header.Get("Cache-Status"), r.tag, twin.header.Get("Etag"))
	}
	byCondition := r.conditional && (site.status == 304 && twin.status < 300 || site.status < 300 && twin.status == 304)
	byRange := r.rng != "" && (site.status == 206 && twin.status == 200 || site.status == 200 && twin.status == 206 || site.status == 416 || site.status == 200 && twin.status == 416)
	if site.status == twin.status || byCondition || byRange {
		return nil
	}
	return differs("status", "%d (%s), twin %d", site.status, site.header.Get("Cache-Status"), twin.status)
}

func (c *composition) compareFields(r request, siteAnswer, twinAnswer *answer, share bool) *difference {
	site, twin := siteAnswer.header, twinAnswer.header
	names := make(map[string]bool)
	for name := range site {
		names[name] = true
	}
	for name := range twin {
		names[name] = true
	}
	validated := strings.Contains(site.Get("Cache-Status"), "fwd-status=304")
	status := strings.Join(site["Cache-Status"], ", ") // a cache may stand behind another
	reused := strings.Contains(status, "hit;") || strings.Contains(status, "collapsed") || validated
	for name := range names {
		a, b := strings.Join(site[name], ", "), strings.Join(twin[name], ", ")
		if _, known := fieldsNotYet[name]; known {
			continue
		}
		if a == b || slices.Contains(mayDiffer, name) || share && name == "Etag" ||
			(r.method == "HEAD" || r.rng != "" || validated) && slices.Contains(wholes, name) {
			continue
		}
		if siteAnswer.status == 206 && twinAnswer.status == 200 && strings.HasPrefix(name, "Trailer-") {
			continue // the fields after a whole are not those of a part
		}
		if a == "" && (reused && c.any(func(e *element) bool { return e.lacks == name })) {
			continue
		}
		return differs("field", "%s: %q (%s), twin %q", name, a, site.Get("Cache-Status"), b)
	}
	return nil
}

func compareBodies(r request, site, twin *answer, share bool) *difference {
	if site.status != twin.status && (site.header.Get("Content-Encoding") != "" || twin.header.Get("Content-Encoding") != "") {
		return nil // a part of a coded body
	}
	a, errA := decoded(site)
	b, errB := decoded(twin)
	if errA != nil && errB == nil {
		return differs("undecodable", "%v", errA)
	}
	if site.status == 206 && twin.status == 200 {
		b = cut(b, r.rng)
	} else if site.status == 200 && twin.status == 206 {
		a = cut(a, r.rng)
	}
	if share && r.rng != "" && len(a) == len(b) && len(a) < 200 {
		return nil // there may be a piece of an identity in it, and all are of one length
	}
	if share {
		a, b = identity.ReplaceAll(a, []byte("id=*;")), identity.ReplaceAll(b, []byte("id=*;"))
	}
	if !bytes.Equal(a, b) {
		return differs("body", "(%s)\n      %s\n    twin\n      %s", site.header.Get("Cache-Status"), shortened(a), shortened(b))
	}
	return nil
}

// decoded returns a whole body without its coding.
func decoded(a *answer) ([]byte, error) {
	if a.header.Get("Content-Encoding") != "gzip" || a.status == 206 {
		return a.body, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(a.body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// opaque returns what two entity tags are compared by, whatever an encoder made of them.
func opaque(tag string) string {
	return strings.TrimSuffix(strings.Trim(strings.TrimPrefix(tag, "W/"), "\""), "-gzip")
}

// cut returns the range of a body.
func cut(body []byte, rng string) []byte {
	var from, to int
	if n, _ := fmt.Sscanf(rng, "bytes=-%d", &to); n == 1 {
		return body[max(0, len(body)-to):]
	}
	if n, _ := fmt.Sscanf(rng, "bytes=%d-%d", &from, &to); n < 2 {
		to = len(body) - 1
	}
	from, to = min(from, len(body)), min(to+1, len(body))
	return body[from:max(from, to)]
}

func shortened(body []byte) string {
	if len(body) > 200 {
		return fmt.Sprintf("%.200s… (%d bytes)", body, len(body))
	}
	return strings.TrimSpace(string(body))
}
