package caddygroupcache

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"
)

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
	body, err := askAdmin(fl, http.MethodGet, "/groupcache/explain?"+query.Encode(), nil)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if fl.Bool("json") {
		_, err := os.Stdout.Write(body)
		return caddy.ExitCodeSuccess, err
	}
	var e Explanation
	if err := json.Unmarshal(body, &e); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("reading the answer of the admin API: %w", err)
	}
	return caddy.ExitCodeSuccess, printExplanation(os.Stdout, e)
}

func printExplanation(out io.Writer, e Explanation) error {
	fmt.Fprintf(out, "%s %s, at %s\n", e.Method, e.URL, e.Node)
	for _, g := range e.Groups {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		verdict := g.Verdict
		if why := g.Detail + g.Reason; why != "" { // never both
			verdict += ", " + why
		}
		fmt.Fprintf(w, "\ngroup\t%s\nverdict\t%s\n", g.Group, verdict)
		if g.Key != "" {
			fmt.Fprintf(w, "key\t%s\nhash\t%s\nowner\t%s\n", g.Key, g.Hash, g.Owner)
		}
		fmt.Fprintln(w)
		if err := w.Flush(); err != nil {
			return err
		}
		for _, sentence := range g.Words {
			fmt.Fprintln(out, sentence)
		}
	}
	return nil
}
