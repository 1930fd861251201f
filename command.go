package caddygroupcache

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "groupcache",
		Usage: "status | explain | dashboard | warm | purge | keygen",
		Short: "Looks after the response cache of a running Caddy",
		Long: `
Asks the groupcache app of a running Caddy, over its admin API.

  status    the members of the cluster, and what this node stores
  explain   what the cache would do with a request, and why
  dashboard opens a way for a browser to the dashboard
  warm      fills the cache by asking for a list of URLs
  purge     takes back stored responses, on all nodes
  keygen    prints a new secret for the cluster; asks nobody`,
		CobraFunc: func(cmd *cobra.Command) {
			status := &cobra.Command{
				Use:   "status [--json] [--address <interface>] [--config <path> [--adapter <name>]]",
				Short: "Shows the cluster's members and what this node stores",
				RunE:  caddycmd.WrapCommandFuncForCobra(cmdStatus),
			}
			adminFlags(status)
			purge := &cobra.Command{
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
			purge.Flags().StringArray("url", nil, "A URL as clients ask for it, with scheme, host and query: all its variants")
			purge.Flags().StringArray("prefix", nil, "What URLs begin with, scheme and host included")
			purge.Flags().StringArray("host", nil, "A host, on any port; with a port, on that one")
			purge.Flags().StringArray("tag", nil, "A cache tag")
			purge.Flags().Bool("all", false, "Everything")
			purge.Flags().Bool("soft", false, "Make it stale instead of dropping it")
			purge.Flags().String("group", "", "Only of this group of handlers")
			adminFlags(purge)
			keygen := &cobra.Command{
				Use:   "keygen",
				Short: "Prints a new secret for the cluster",
				Args:  cobra.NoArgs,
				RunE:  caddycmd.WrapCommandFuncForCobra(cmdKeygen),
			}
			cmd.AddCommand(status, explainCommand(), dashboardCommand(), warmCommand(), purge, keygen)
		},
	})
}

// adminFlags adds the flags of a command that asks the admin API.
func adminFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("json", false, "Print the admin API's answer as it is")
	cmd.Flags().String("address", "", "The address of the admin API, if not the default")
	cmd.Flags().StringP("config", "c", "", "Configuration file to find the address in")
	cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply to it")
}

func cmdKeygen(caddycmd.Flags) (int, error) {
	var secret [minSecret]byte
	_, _ = rand.Read(secret[:]) // never fails
	fmt.Println(base64.StdEncoding.EncodeToString(secret[:]))
	return caddy.ExitCodeSuccess, nil
}

// maxAdminAnswer bounds what a command reads.
const maxAdminAnswer = 64 << 20

// askAdmin asks the admin API that the flags name.
func askAdmin(fl caddycmd.Flags, method, path string, body io.Reader) ([]byte, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return nil, fmt.Errorf("finding the admin API: %w", err)
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

func cmdStatus(fl caddycmd.Flags) (int, error) {
	body, err := askAdmin(fl, http.MethodGet, "/groupcache/status", nil)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if fl.Bool("json") {
		_, err := os.Stdout.Write(body)
		return caddy.ExitCodeSuccess, err
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("reading the answer of the admin API: %w", err)
	}
	return caddy.ExitCodeSuccess, printStatus(os.Stdout, s)
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
	slow := time.AfterFunc(time.Second, func() { fmt.Fprintln(os.Stderr, "waiting for nodes that are slow to answer") })
	answer, err := askAdmin(fl, http.MethodPost, "/groupcache/purge", bytes.NewReader(body))
	slow.Stop()
	var result PurgeResult
	if err != nil {
		if result, answer = failedPurge(err); len(result.Nodes) == 0 {
			return caddy.ExitCodeFailedStartup, err
		}
	} else if err := json.Unmarshal(answer, &result); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("reading the answer of the admin API: %w", err)
	}
	if fl.Bool("json") {
		_, err = os.Stdout.Write(answer)
	} else {
		err = printPurge(os.Stdout, result)
	}
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if missing := result.missing(); len(missing) > 0 {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("not acknowledged by %s", strings.Join(missing, ", "))
	}
	return caddy.ExitCodeSuccess, nil
}

func purgeRequestOf(fl caddycmd.Flags) (PurgeRequest, error) {
	req := PurgeRequest{Group: fl.String("group"), All: fl.Bool("all"), Soft: fl.Bool("soft")}
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
func failedPurge(err error) (result PurgeResult, answer []byte) {
	_, text, found := strings.Cut(err.Error(), fmt.Sprintf("HTTP %d: ", http.StatusBadGateway))
	if !found || json.Unmarshal([]byte(text), &result) != nil {
		return PurgeResult{}, nil
	}
	return result, []byte(text)
}

func printPurge(out io.Writer, result PurgeResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "purge %s\n\nNODE\tANSWER\n", result.ID)
	for _, a := range result.Nodes {
		answer := "acknowledged"
		if !a.Acknowledged {
			answer = "failed: " + a.Error
		}
		fmt.Fprintf(w, "%s\t%s\n", a.Name, answer)
	}
	return w.Flush()
}

func printStatus(out io.Writer, s Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	size := func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
	fmt.Fprintf(w, "node %s, up %s, %s of %s in use\n\n", s.Node, time.Duration(s.UptimeSeconds)*time.Second,
		size(s.Memory.Main+s.Memory.Hot+s.Memory.Index+s.Memory.InFlight), size(s.Memory.Limit))
	fmt.Fprintln(w, "MEMBER\tSTATE\tSHARE\tGOSSIP\tPEERS")
	for _, m := range s.Members {
		name := m.Name
		if m.Self {
			name += " (this node)"
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f%%\t%s\t%s\n", name, m.State, m.Share*100, m.Gossip, m.Peers)
	}
	fmt.Fprintln(w, "\nGROUP\tENTRIES\tBODIES\tHITS\tSTALE\tMISSES\tCOLLAPSED\tBYPASSES\tFETCHES")
	for _, g := range s.Groups {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", g.Name, g.Entries, size(g.Bytes),
			g.Hits, g.Stale, g.Misses+g.Revalidated, g.Collapsed, g.Bypasses, g.Fills)
	}
	return w.Flush()
}
