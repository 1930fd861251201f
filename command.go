package caddygroupcache

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
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
		Usage: "status | keygen",
		Short: "Looks after the response cache of a running Caddy",
		Long: `
Asks the groupcache app of a running Caddy, over its admin API.

  status    the members of the cluster, and what this node stores
  keygen    prints a new secret for the cluster; asks nobody`,
		CobraFunc: func(cmd *cobra.Command) {
			status := &cobra.Command{
				Use:   "status [--json] [--address <interface>] [--config <path> [--adapter <name>]]",
				Short: "Shows the cluster's members and what this node stores",
				RunE:  caddycmd.WrapCommandFuncForCobra(cmdStatus),
			}
			status.Flags().Bool("json", false, "Print the admin API's answer as it is")
			status.Flags().String("address", "", "The address of the admin API, if not the default")
			status.Flags().StringP("config", "c", "", "Configuration file to find the address in")
			status.Flags().StringP("adapter", "a", "", "Name of config adapter to apply to it")
			keygen := &cobra.Command{
				Use:   "keygen",
				Short: "Prints a new secret for the cluster",
				Args:  cobra.NoArgs,
				RunE:  caddycmd.WrapCommandFuncForCobra(cmdKeygen),
			}
			cmd.AddCommand(status, keygen)
		},
	})
}

func cmdKeygen(caddycmd.Flags) (int, error) {
	var secret [minSecret]byte
	_, _ = rand.Read(secret[:]) // never fails
	fmt.Println(base64.StdEncoding.EncodeToString(secret[:]))
	return caddy.ExitCodeSuccess, nil
}

// maxAdminAnswer bounds what a command reads.
const maxAdminAnswer = 64 << 20

func cmdStatus(fl caddycmd.Flags) (int, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("finding the admin API: %w", err)
	}
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/groupcache/status", nil, nil)
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("asking %s: %w", address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer))
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("reading the answer of %s: %w", address, err)
	}
	if fl.Bool("json") {
		_, err := os.Stdout.Write(body)
		return caddy.ExitCodeSuccess, err
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("reading the answer of %s: %w", address, err)
	}
	return caddy.ExitCodeSuccess, printStatus(os.Stdout, s)
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
