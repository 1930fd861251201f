// Package dashboard has the page that shows an operator the cluster, and the gate by
// which a browser on the operator's machine gets to it. What the page shows it asks
// for at /groupcache/cluster beside itself.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/http"
)

// The dashboard is one page without any other resource: Caddy's admin endpoint
// refuses what browsers load for a page by themselves, and operators may be
// without a way to the internet.
//
//go:embed dashboard.html
var page []byte

// policy lets the page run its own script and style, talk to where it comes from, and
// nothing else.
var policy = fmt.Sprintf("default-src 'none'; script-src %s; style-src %s; connect-src 'self'; img-src data:; "+
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hashOf("script"), hashOf("style"))

// hashOf returns the source expression of the page's one element of a kind.
func hashOf(element string) string {
	_, rest, _ := bytes.Cut(page, []byte("<"+element+">"))
	text, _, _ := bytes.Cut(rest, []byte("</"+element+">"))
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// WritePage answers a GET or HEAD with the page. The error is that of writing to the
// client.
func WritePage(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	// The admin endpoint wants to see where requests of browsers come from.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	_, err := w.Write(page)
	return err
}
