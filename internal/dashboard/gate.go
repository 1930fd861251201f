package dashboard

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// A Gate hands requests of browsers on to the admin endpoint: those that know its
// secret, are made by its own pages, and are about the cache.
type Gate struct {
	host   string
	secret string
	proxy  *httputil.ReverseProxy
}

// NewGate returns a gate with a secret of its own. It listens at the address host, and
// dial connects it to the admin endpoint, whose host is admin to those who ask it.
func NewGate(host, admin string, dial func(context.Context) (net.Conn, error)) *Gate {
	g := &Gate{host: host, secret: rand.Text()}
	origin := &url.URL{Scheme: "http", Host: admin}
	g.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(origin)
			r.Out.Host = origin.Host
			r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/"+g.secret)
			for name := range r.Out.Header {
				if name != "Content-Type" {
					delete(r.Out.Header, name)
				}
			}
			r.Out.Header.Set("Origin", origin.String())
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("Access-Control-Allow-Origin")
			return nil
		},
	}
	return g
}

// URL returns the address of the dashboard, with the secret.
func (g *Gate) URL() string { return "http://" + g.host + "/" + g.secret + "/groupcache/" }

// ServeHTTP refuses what a page of another site may have a browser send: its
// address would have to be the gate's, and that has the secret in it.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	switch {
	case r.Host != g.host, !strings.HasPrefix(r.URL.Path, "/"+g.secret+"/groupcache/"),
		strings.Contains(r.URL.Path, ".."),
		origin != "" && origin != "http://"+g.host,
		r.Method != http.MethodGet && r.Method != http.MethodPost:
		http.Error(w, "This is not the address that caddy groupcache dashboard has printed.", http.StatusForbidden)
		return
	}
	g.proxy.ServeHTTP(w, r)
}
