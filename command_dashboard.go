package caddygroupcache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"
)

func dashboardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dashboard [--listen <address>] [--address <interface>] [--config <path> [--adapter <name>]]",
		Short: "Opens a way for a browser to the dashboard",
		Long: `
Serves the dashboard of a running Caddy on this machine, for as long as it runs,
and prints the address to open. Whoever has that address can see the dashboard
and purge; without its random part nobody on this machine can.

Caddy's admin endpoint serves the dashboard at /groupcache/ too, but refuses
browsers that come from nowhere, unless its origins option lets them in, and it
may listen on a Unix socket.`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(cmdDashboard),
	}
	cmd.Flags().String("listen", "127.0.0.1:0", "Where to listen: a loopback address; port 0 is any free one")
	cmd.Flags().String("address", "", "The address of the admin API, if not the default")
	cmd.Flags().StringP("config", "c", "", "Configuration file to find the address in")
	cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply to it")
	return cmd
}

func cmdDashboard(fl caddycmd.Flags) (int, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("finding the admin API: %w", err)
	}
	admin, err := caddy.ParseNetworkAddress(address)
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("admin address %s: %w", address, err)
	}
	if _, err := askAdmin(fl, http.MethodGet, "/groupcache/status", nil); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	l, err := net.Listen("tcp", fl.String("listen"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if host, ok := l.Addr().(*net.TCPAddr); !ok || !host.IP.IsLoopback() {
		l.Close()
		return caddy.ExitCodeFailedStartup, fmt.Errorf("listen %s: it must be a loopback address, because who reaches it could purge", fl.String("listen"))
	}
	gate := newDashboardGate(l.Addr().String(), admin)
	fmt.Printf("The dashboard is at\n\n  %s\n\nuntil you press Ctrl-C.\n", gate.url())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := &http.Server{Handler: gate, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}

// A dashboardGate hands requests of browsers on to the admin endpoint: those
// that know its secret, are made by its own pages, and are about the cache.
type dashboardGate struct {
	host   string
	secret string
	proxy  *httputil.ReverseProxy
}

func newDashboardGate(host string, admin caddy.NetworkAddress) *dashboardGate {
	g := &dashboardGate{host: host, secret: rand.Text()}
	origin := &url.URL{Scheme: "http", Host: "127.0.0.1"} // of a Unix socket, any will do
	if !admin.IsUnixNetwork() && !admin.IsFdNetwork() {
		origin.Host = admin.JoinHostPort(0)
	}
	if path, _, found := strings.Cut(admin.Host, "|"); found && admin.IsUnixNetwork() {
		admin.Host = path // without the permissions that Caddy gives the socket
	}
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
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, admin.Network, admin.JoinHostPort(0))
		}},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("Access-Control-Allow-Origin")
			return nil
		},
	}
	return g
}

func (g *dashboardGate) url() string { return "http://" + g.host + "/" + g.secret + "/groupcache/" }

// ServeHTTP refuses what a page of another site may have a browser send: its
// address would have to be ours, and that has the secret in it.
func (g *dashboardGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
