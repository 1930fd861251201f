// Package command is caddy groupcache: what looks after the cache of a running Caddy, over
// its admin API, and what warms it as a client. Importing it registers the command.
package command

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/dashboard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/explain"
	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/purging"
	"github.com/caddy-groupcache/caddy-groupcache/internal/report"
	"github.com/caddy-groupcache/caddy-groupcache/internal/warm"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "groupcache",
		Usage: "status | list | explain | dashboard | warm | purge | keygen",
		Short: "Looks after the response cache of a running Caddy",
		Long: `
Asks the groupcache app of a running Caddy, over its admin API.

  status    the members of the cluster, and what this node stores
  list      what is stored, on all nodes
  explain   what the cache would do with a request, and why
  dashboard opens a way for a browser to the dashboard
  warm      fills the cache by asking for a list of URLs
  purge     takes back stored responses, on all nodes
  keygen    prints a new secret for the cluster; asks nobody`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(statusCommand(), listCommand(), explainCommand(), dashboardCommand(), warmCommand(), purgeCommand(), keygenCommand())
		},
	})
}

// adminFlags adds the flags of a command that prints what the admin API answers.
func adminFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("json", false, "Print the admin API's answer as it is")
	addressFlags(cmd)
}

// addressFlags adds the flags that say where the admin API is.
func addressFlags(cmd *cobra.Command) {
	cmd.Flags().String("address", "", "The address of the admin API, if not the default")
	cmd.Flags().StringP("config", "c", "", "Configuration file to find the address in")
	cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply to it")
}

// maxAdminAnswer bounds what a command reads.
const maxAdminAnswer = 64 << 20

// adminAddress returns the address of the admin API that the flags name.
func adminAddress(fl caddycmd.Flags) (string, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return "", fmt.Errorf("finding the admin API: %w", err)
	}
	return address, nil
}

// askAdmin asks the admin API that the flags name.
func askAdmin(fl caddycmd.Flags, method, path string, body io.Reader) ([]byte, error) {
	address, err := adminAddress(fl)
	if err != nil {
		return nil, err
	}
	resp, err := caddycmd.AdminAPIRequest(address, method, path, nil, body)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", address, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", address, err)
	}
	return answer, nil
}

// printAnswer asks the admin API, and prints its answer: with --json as it is, otherwise
// what it says to people once it is read into answer.
func printAnswer(fl caddycmd.Flags, path string, answer interface{ Print(io.Writer) error }) (int, error) {
	body, err := askAdmin(fl, http.MethodGet, path, nil)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if fl.Bool("json") {
		_, err := os.Stdout.Write(body)
		return caddy.ExitCodeSuccess, err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("reading the answer of the admin API: %w", err)
	}
	return caddy.ExitCodeSuccess, show(os.Stdout, answer.Print)
}

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [--json] [--address <interface>] [--config <path> [--adapter <name>]]",
		Short: "Shows the cluster's members and what this node stores",
		RunE:  caddycmd.WrapCommandFuncForCobra(cmdStatus),
	}
	adminFlags(cmd)
	return cmd
}

func cmdStatus(fl caddycmd.Flags) (int, error) {
	return printAnswer(fl, "/groupcache/status", new(report.Status))
}

func listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [--prefix <prefix>]... [--host <host>]... [--tag <tag>]... [--limit <n>] [--group <name>] " +
			"[--json] [--address <interface>] [--config <path> [--adapter <name>]]",
		Short: "Lists what is stored, on all nodes",
		Long: `
Lists what is stored, on all nodes, by URL: one line for each cache key. What options
name is what a purge by the same options would take back; without any, it is
everything. Nothing stored changes.`,
		Example: `  caddy groupcache list
  caddy groupcache list --tag news
  caddy groupcache list --prefix https://www.example.com/blog/ --limit 1000`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(cmdList),
	}
	cmd.Flags().StringArray("prefix", nil, "What URLs begin with, scheme and host included")
	cmd.Flags().StringArray("host", nil, "A host, on any port; with a port, on that one")
	cmd.Flags().StringArray("tag", nil, "A cache tag")
	cmd.Flags().Int("limit", report.DefaultEntries, fmt.Sprintf("How many, at most %d", report.MaxEntries))
	cmd.Flags().String("group", "", "Only of this group of handlers")
	adminFlags(cmd)
	return cmd
}

func cmdList(fl caddycmd.Flags) (int, error) {
	query := url.Values{"group": {fl.String("group")}, "limit": {fmt.Sprint(fl.Int("limit"))}}
	for _, name := range []string{"prefix", "host", "tag"} {
		values, err := fl.GetStringArray(name)
		if err != nil {
			return caddy.ExitCodeFailedStartup, err
		}
		query[name] = values
	}
	return printAnswer(fl, "/groupcache/entries?"+query.Encode(), new(report.Entries))
}

func purgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "purge [--url <url>]... [--prefix <prefix>]... [--host <host>]... [--tag <tag>]... [--all] [--soft] [--group <name>] " +
			"[--json] [--address <interface>] [--config <path> [--adapter <name>]]",
		Short: "Takes back stored responses, on all nodes",
		Long: `
Takes back what is stored, on all nodes, and prints what each of them answered.
It succeeds if all of them have acknowledged: then none serves any more what was
fetched before. All options but --address, --config and --adapter may be repeated
or combined; what any of them names is purged.`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(cmdPurge),
	}
	cmd.Flags().StringArray("url", nil, "A URL as clients ask for it, with scheme, host and query: all its variants")
	cmd.Flags().StringArray("prefix", nil, "What URLs begin with, scheme and host included")
	cmd.Flags().StringArray("host", nil, "A host, on any port; with a port, on that one")
	cmd.Flags().StringArray("tag", nil, "A cache tag")
	cmd.Flags().Bool("all", false, "Everything")
	cmd.Flags().Bool("soft", false, "Make it stale instead of dropping it")
	cmd.Flags().String("group", "", "Only of this group of handlers")
	adminFlags(cmd)
	return cmd
}

func cmdPurge(fl caddycmd.Flags) (int, error) {
	req, err := purgeRequestOf(fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	slow := guard.AfterFunc(time.Second, func() { fmt.Fprintln(os.Stderr, "waiting for nodes that are slow to answer") })
	answer, err := askAdmin(fl, http.MethodPost, "/groupcache/purge", bytes.NewReader(body))
	slow.Stop()
	var result purging.Result
	if err != nil {
		if result, answer = failedPurge(err); len(result.Nodes) == 0 {
			return caddy.ExitCodeFailedStartup, err
		}
	} else if err := json.Unmarshal(answer, &result); err != nil || len(result.Nodes) == 0 { // the node that is asked acknowledges, too
		return caddy.ExitCodeFailedStartup, fmt.Errorf("%.200q is no answer to a purge: is another server at this address?", answer)
	}
	if fl.Bool("json") {
		_, err = os.Stdout.Write(answer)
	} else {
		err = show(os.Stdout, result.Print)
	}
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if missing := result.Missing(); len(missing) > 0 {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("not acknowledged by %s", strings.Join(missing, ", "))
	}
	return caddy.ExitCodeSuccess, nil
}

func purgeRequestOf(fl caddycmd.Flags) (purging.Request, error) {
	req := purging.Request{Group: fl.String("group"), All: fl.Bool("all"), Soft: fl.Bool("soft")}
	for name, values := range map[string]*[]string{"url": &req.URLs, "prefix": &req.Prefixes, "host": &req.Hosts, "tag": &req.Tags} {
		var err error
		if *values, err = fl.GetStringArray(name); err != nil {
			return req, err
		}
	}
	return req, nil
}

// failedPurge finds the answer in what caddycmd.AdminAPIRequest makes of a
// status of 400 or more: an error with the status and the body in its text.
func failedPurge(err error) (result purging.Result, answer []byte) {
	_, text, found := strings.Cut(err.Error(), fmt.Sprintf("HTTP %d: ", http.StatusBadGateway))
	if !found || json.Unmarshal([]byte(text), &result) != nil {
		return purging.Result{}, nil
	}
	return result, []byte(text)
}

func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen",
		Short: "Prints a new secret for the cluster",
		Args:  cobra.NoArgs,
		RunE:  caddycmd.WrapCommandFuncForCobra(cmdKeygen),
	}
}

func cmdKeygen(caddycmd.Flags) (int, error) {
	var secret [gossip.MinSecret]byte
	_, _ = rand.Read(secret[:]) // never fails
	fmt.Println(base64.StdEncoding.EncodeToString(secret[:]))
	return caddy.ExitCodeSuccess, nil
}

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain <url> [--header <field>]... [--method <method>] [--group <name>] " +
			"[--json] [--address <interface>] [--config <path> [--adapter <name>]]",
		Short: "Tells what the cache would do with a request, and why",
		Long: `
Tells what a node would do with a request for a URL now: serve it from the cache,
fetch it, or let it pass, and for what reason; what would change that; and what
each node knows of it. Nothing is fetched, and nothing stored changes.`,
		Example: `  caddy groupcache explain https://www.example.com/news?page=2
  caddy groupcache explain https://www.example.com/ --header 'Accept-Language: de'`,
		Args: cobra.ExactArgs(1),
		RunE: caddycmd.WrapCommandFuncForCobra(cmdExplain),
	}
	cmd.Flags().StringArrayP("header", "H", nil, "A field of the request, as in 'Accept-Language: de'")
	cmd.Flags().String("method", http.MethodGet, "The method of the request")
	cmd.Flags().String("group", "", "Only this group of handlers")
	adminFlags(cmd)
	return cmd
}

func cmdExplain(fl caddycmd.Flags) (int, error) {
	fields, err := fl.GetStringArray("header")
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	query := url.Values{"url": {fl.Arg(0)}, "method": {fl.String("method")}, "group": {fl.String("group")}, "header": fields}
	return printAnswer(fl, "/groupcache/explain?"+query.Encode(), new(explain.Explanation))
}

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
	addressFlags(cmd)
	return cmd
}

func cmdDashboard(fl caddycmd.Flags) (int, error) {
	address, err := adminAddress(fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
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
	gate := gateTo(l.Addr().String(), admin)
	fmt.Printf("The dashboard is at\n\n  %s\n\nuntil you press Ctrl-C.\n", gate.URL())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := &http.Server{Handler: gate, ReadHeaderTimeout: 5 * time.Second}
	guard.AfterContext(ctx, func() { server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}

// gateTo returns a gate at host to the admin endpoint at an address.
func gateTo(host string, admin caddy.NetworkAddress) *dashboard.Gate {
	name := "127.0.0.1" // of a Unix socket, any will do
	if !admin.IsUnixNetwork() && !admin.IsFdNetwork() {
		name = admin.JoinHostPort(0)
	}
	if path, _, found := strings.Cut(admin.Host, "|"); found && admin.IsUnixNetwork() {
		admin.Host = path // without the permissions that Caddy gives the socket
	}
	return dashboard.NewGate(host, name, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, admin.Network, admin.JoinHostPort(0))
	})
}

func warmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "warm <file or sitemap URL> [--connect <host>[:<port>]] [--concurrency <n>] [--rate <n>] [--header <field>]... " +
			"[--insecure] [--json]",
		Short: "Fills the cache, by asking a node for a list of URLs",
		Long: `
Asks a node for each of a list of URLs, so that it has them when visitors come, and
tells what became of them. The list is a file with one URL a line, or a sitemap
or an index of sitemaps, as a file or as a URL; - is standard input.

All requests go to --connect, whatever the URLs' hosts are, and have these hosts
in Host and TLS. They are what a client would send: give --header for variants.`,
		Example: `  caddy groupcache warm https://www.example.com/sitemap.xml
  caddy groupcache warm urls.txt --concurrency 8 --rate 100 --header 'Accept-Language: de'`,
		Args: cobra.ExactArgs(1),
		RunE: caddycmd.WrapCommandFuncForCobra(cmdWarm),
	}
	cmd.Flags().String("connect", "127.0.0.1", "Where the node listens for clients; without a port, that of each URL")
	cmd.Flags().Int("concurrency", 4, "How many requests at the same time, 1 to 256")
	cmd.Flags().Float64("rate", 50, "How many requests a second at most; 0: as many as are answered")
	cmd.Flags().StringArrayP("header", "H", nil, "A field of each request, as in 'Accept-Language: de'")
	cmd.Flags().Bool("insecure", false, "Do not check the node's certificates")
	cmd.Flags().Bool("json", false, "Print the summary as JSON")
	return cmd
}

const (
	maxConcurrency = 256
	// What browsers accept today. Without it, they would all get other variants.
	browserEncodings = "gzip, deflate, br, zstd"
)

func cmdWarm(fl caddycmd.Flags) (int, error) {
	w, err := warmerOf(fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	urls, err := w.Read(ctx, fl.Arg(0))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	progress, end := warm.ProgressBar(os.Stderr, time.Now)
	s := w.Run(ctx, urls, progress)
	end()
	if fl.Bool("json") {
		err = json.NewEncoder(os.Stdout).Encode(s)
	} else {
		err = show(os.Stdout, s.Print)
	}
	switch {
	case err != nil:
	case s.Failed > 0:
		err = fmt.Errorf("%d of %d requests failed", s.Failed, s.Asked)
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	default:
		return caddy.ExitCodeSuccess, nil
	}
	return caddy.ExitCodeFailedStartup, err
}

func warmerOf(fl caddycmd.Flags) (*warm.Client, error) {
	w, err := warm.New(fl.String("connect"), fl.Bool("insecure"))
	if err != nil {
		return nil, err
	}
	if w.Concurrency = fl.Int("concurrency"); w.Concurrency < 1 || w.Concurrency > maxConcurrency {
		return nil, fmt.Errorf("concurrency %d: 1 to %d", w.Concurrency, maxConcurrency)
	}
	if w.Rate = fl.Float64("rate"); w.Rate < 0 {
		return nil, fmt.Errorf("rate %g is negative", w.Rate)
	}
	fields, err := fl.GetStringArray("header")
	if err != nil {
		return nil, err
	}
	if w.Header, err = inbound.ParseFields(fields); err != nil {
		return nil, err
	}
	if len(w.Header["Accept-Encoding"]) == 0 {
		w.Header.Set("Accept-Encoding", browserEncodings)
	}
	if len(w.Header["User-Agent"]) == 0 {
		w.Header.Set("User-Agent", "caddy-groupcache-warm")
	}
	return w, nil
}
