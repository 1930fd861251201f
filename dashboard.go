package caddygroupcache

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// The dashboard is one page without any other resource: Caddy's admin endpoint
// refuses what browsers load for a page by themselves, and operators may be
// without a way to the internet.
//
//go:embed dashboard.html
var dashboardPage []byte

// dashboardPolicy lets the page run its own script and style, talk to where it
// comes from, and nothing else.
var dashboardPolicy = fmt.Sprintf("default-src 'none'; script-src %s; style-src %s; connect-src 'self'; img-src data:; "+
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hashOf("script"), hashOf("style"))

// hashOf returns the source expression of the page's one element of a kind.
func hashOf(element string) string {
	_, rest, _ := bytes.Cut(dashboardPage, []byte("<"+element+">"))
	text, _, _ := bytes.Cut(rest, []byte("</"+element+">"))
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (api *adminAPI) dashboard(w http.ResponseWriter, r *http.Request) error {
	switch {
	case strings.TrimPrefix(r.URL.Path, "/groupcache/") != "":
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("there is /groupcache/, and below it status, cluster, explain and purge")}
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("the dashboard is read with GET, not %s", r.Method)}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", dashboardPolicy)
	// The admin endpoint wants to see where requests of browsers come from.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	_, err := w.Write(dashboardPage)
	return err
}
