package purging

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Result is what the purge API answers.
type Result struct {
	// Names the purge in the logs of all nodes.
	ID string `json:"id"`

	// What each live node said.
	Nodes []node.Acknowledgement `json:"nodes"`
}

// Everywhere applies purges in the whole cluster.
func Everywhere(p *node.Purger, purges []store.Purge) Result {
	r := Result{ID: purges[0].ID.String(), Nodes: p.Everywhere(purges)}
	slices.SortFunc(r.Nodes, func(a, b node.Acknowledgement) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// Write answers with the result: 502 unless all nodes have acknowledged.
func (r Result) Write(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	if len(r.Missing()) > 0 {
		w.WriteHeader(http.StatusBadGateway)
	}
	return json.NewEncoder(w).Encode(r)
}

// Missing names the nodes that have not acknowledged.
func (r Result) Missing() []string {
	missing := []string{}
	for _, a := range r.Nodes {
		if !a.Acknowledged {
			missing = append(missing, a.Name)
		}
	}
	return missing
}

// Print writes the result as a command shows it.
func (r Result) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "purge %s\n\nNODE\tANSWER\n", r.ID)
	for _, a := range r.Nodes {
		answer := "acknowledged"
		if !a.Acknowledged {
			answer = "failed: " + a.Error
		}
		fmt.Fprintf(w, "%s\t%s\n", a.Name, answer)
	}
	return w.Flush()
}

// WriteError answers with a sentence in the form of Caddy's admin API.
func WriteError(w http.ResponseWriter, err error) error {
	status := http.StatusBadRequest
	if e := (Error{}); errors.As(err, &e) {
		status = e.Status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}
