package caddygroupcache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/dashboard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/explain"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/report"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/internal/warm"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// adminAPI serves what operators ask of the running node, whatever config is
// active.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.groupcache", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes returns the admin routes.
func (api *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/groupcache/", Handler: caddy.AdminHandlerFunc(api.dashboard)},
		{Pattern: "/groupcache/cluster", Handler: caddy.AdminHandlerFunc(api.cluster)},
		{Pattern: "/groupcache/status", Handler: caddy.AdminHandlerFunc(api.status)},
		{Pattern: "/groupcache/explain", Handler: caddy.AdminHandlerFunc(api.explain)},
		{Pattern: "/groupcache/entries", Handler: caddy.AdminHandlerFunc(api.entries)},
		{Pattern: "/groupcache/purge", Handler: caddy.AdminHandlerFunc(api.purge)},
	}
}

func (api *adminAPI) dashboard(w http.ResponseWriter, r *http.Request) error {
	switch {
	case strings.TrimPrefix(r.URL.Path, "/groupcache/") != "":
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("there is /groupcache/, and below it status, cluster, explain, entries and purge")}
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("the dashboard is read with GET, not %s", r.Method)}
	}
	return dashboard.WritePage(w)
}

// WarmSummary is what caddy groupcache warm --json prints.
type WarmSummary = warm.Summary

// What GET /groupcache/status answers, and GET /groupcache/cluster.
type (
	Status        = report.Status
	MemberStatus  = report.Member
	GroupStatus   = report.Group
	MemoryStatus  = report.Memory
	ClusterStatus = report.Cluster
	ClusterNode   = report.ClusterNode
	Entries       = report.Entries
	EntryStatus   = report.Entry
	EntriesNode   = report.EntriesNode
	NodeReport    = report.Report
	PurgeStatus   = report.Purge
	History       = report.History
)

var errNoApp = errors.New("the running config has no groupcache")

// answerGet answers a GET with what the running process says of a subject, in JSON.
func answerGet(w http.ResponseWriter, r *http.Request, subject string, say func(*process) (any, error)) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("%s read with GET, not %s", subject, r.Method)}
	}
	p := currentProcess()
	if p == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errNoApp}
	}
	answer, err := say(p)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(answer)
}

func (api *adminAPI) status(w http.ResponseWriter, r *http.Request) error {
	return answerGet(w, r, "status is", func(p *process) (any, error) { return p.status(), nil })
}

func (api *adminAPI) cluster(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	return answerGet(w, r, "the cluster's status is", func(p *process) (any, error) {
		own := p.report()
		return report.Gather(r.Context(), p.node.Client, &own), nil
	})
}

// entries lists what is stored on all nodes, by the words that a purge takes.
func (api *adminAPI) entries(w http.ResponseWriter, r *http.Request) error {
	return answerGet(w, r, "entries are", func(p *process) (any, error) {
		q, err := entriesQuery(r.URL.Query())
		if err != nil {
			return nil, err
		}
		q.Selectors = withKeys(q.Selectors, p.config.handlersOf(q.Group).distinct()) // or a list would lack what a purge drops
		return report.GatherEntries(r.Context(), p.node, q)
	})
}

func entriesQuery(params url.Values) (report.EntriesQuery, error) {
	q := report.EntriesQuery{Group: params.Get("group"), Limit: report.DefaultEntries}
	for name := range params {
		if !slices.Contains([]string{"url", "prefix", "host", "tag", "group", "limit"}, name) {
			return q, fmt.Errorf("%.50q is none of url, prefix, host, tag, group and limit", name)
		}
	}
	if text := params.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return q, fmt.Errorf("limit %.50q: a number up to %d", text, report.MaxEntries)
		}
		q.Limit = n
	}
	named := PurgeRequest{URLs: params["url"], Prefixes: params["prefix"], Hosts: params["host"], Tags: params["tag"]}
	if len(named.URLs)+len(named.Prefixes)+len(named.Hosts)+len(named.Tags) == 0 {
		return q, nil
	}
	var err error
	q.Selectors, err = named.Selectors(maxExplainedURL)
	return q, err
}

func (p *process) status() Status {
	usage := p.node.Store.Usage()
	s := Status{
		Node:          p.node.Name,
		UptimeSeconds: int64(time.Since(p.started) / time.Second),
		Members:       p.memberStatus(),
		Groups:        []GroupStatus{},
		Memory: MemoryStatus{
			Limit: p.cacheSize, Main: usage.Main.Bytes, Hot: usage.Hot.Bytes,
			Index: usage.IndexBytes, InFlight: p.node.Budget.Used(),
			BodyLimit: usage.BodyLimit, IndexLimit: usage.IndexLimit, InFlightLimit: p.cacheSize / 16 * node.FlightShare,
		},
	}
	for _, space := range p.node.Store.Namespaces() {
		c := p.counters.of(space.Name)
		g := GroupStatus{
			Name: space.Name, Entries: space.Entries.Load(), Bytes: space.Bytes.Load(),
			Hits: c.requests[statusHit].Load(), Stale: c.requests[statusStale].Load(),
			Revalidated: c.requests[statusRevalidated].Load(), Misses: c.requests[statusMiss].Load(),
			Collapsed: c.requests[statusCollapsed].Load(), Bypasses: c.requests[statusBypass].Load(),
			FillResults: make(map[string]int64), NotStored: make(map[string]int64),
		}
		for i, result := range fillResultNames {
			n := c.fills[i].Load()
			g.Fills += n
			g.FillResults[result] = n
		}
		for _, why := range rfc9111.Reasons() {
			if n := c.notStored[why].Load(); n > 0 {
				g.NotStored[why.String()] = n
			}
		}
		s.Groups = append(s.Groups, g)
	}
	slices.SortFunc(s.Groups, func(a, b GroupStatus) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

func (p *process) memberStatus() []MemberStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return []MemberStatus{{Name: p.node.Name, State: "alive", Share: 1, Self: true}}
	}
	ring, degraded := p.node.Ring.Load(), p.node.Client.Degraded()
	all := []MemberStatus{}
	for _, m := range p.members.Members() {
		is := MemberStatus{
			Name: m.Name, State: m.State, Gossip: m.Gossip, Peers: m.Peers,
			Version: m.Version, Self: m.Self, Life: m.Life,
		}
		if usable(m) {
			is.Share = ring.Share(m.Name)
			if why := p.node.Members.Unreachable(m.Name); why != nil {
				is.Unreachable = why.Error()
			} else if degraded[m.Peers] && !m.Self {
				is.Unreachable = "it has not answered lately, and is left alone for a while"
			}
		}
		all = append(all, is)
	}
	slices.SortFunc(all, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Report tells another node how this one is.
func (p *process) Report() any { return p.report() }

func (p *process) report() NodeReport {
	now := time.Now()
	applied, _ := p.node.Purger.Log.All()
	busiest, missed := p.node.Busiest(now)
	return NodeReport{Status: p.status(), Busiest: busiest, Missed: missed, Purges: report.Purges(applied, now), History: p.samples.History()}
}

// An Explanation is what GET /groupcache/explain answers: what the cache knows
// of a URL, and what it would do with a request for it now.
type Explanation = explain.Explanation

// The parts of an Explanation.
type (
	GroupExplanation = explain.Group
	NodeKnowledge    = explain.Knowledge
	VariantKnowledge = explain.Variant
	Uncacheable      = explain.Uncacheable
	NotStored        = explain.NotStored
	PurgeKnowledge   = explain.Purge
)

// maxExplainedURL is more than what has a key.
const maxExplainedURL = 4 * inbound.MaxTarget

func (api *adminAPI) explain(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return answerGet(w, r, "explanations are", func(p *process) (any, error) {
		return p.explain(r.Context(), cmp.Or(q.Get("method"), http.MethodGet), q.Get("url"), q.Get("group"), q["header"])
	})
}

// explain explains what would become of a request, in one group or in all.
func (p *process) explain(ctx context.Context, method, address, group string, fields []string) (Explanation, error) {
	u, err := store.ParseURL(address, true, maxExplainedURL)
	if err != nil {
		return Explanation{}, fmt.Errorf("url %.200q: %w", address, err)
	}
	if !httpguts.ValidHeaderFieldName(method) { // both are tokens
		return Explanation{}, fmt.Errorf("method %.50q is none", method)
	}
	header, err := inbound.ParseFields(fields)
	if err != nil {
		return Explanation{}, err
	}
	handlers := p.config.handlersOf(group)
	switch {
	case len(handlers) == 0 && group != "":
		return Explanation{}, fmt.Errorf("group %q: no handler of the running config has it", group)
	case len(handlers) == 0:
		return Explanation{}, errors.New("the running config has no groupcache handler: add the groupcache directive to a site")
	}
	e := Explanation{Node: p.node.Name, Method: method, URL: u, Groups: []GroupExplanation{}}
	r, err := explainedRequest(method, u, header)
	if err != nil {
		return Explanation{}, err
	}
	for _, h := range handlers.explained(r) {
		g, err := explainGroup(ctx, h, method, u, header)
		if err != nil {
			return Explanation{}, err
		}
		e.Groups = append(e.Groups, g)
	}
	e.Sort()
	if group == "" {
		e.Shorten()
	}
	return e, nil
}

// explainGroup explains the decision of one handler. Nothing is served or fetched, and
// nothing stored changes.
func explainGroup(ctx context.Context, h *Handler, method, u string, header http.Header) (GroupExplanation, error) {
	r, err := explainedRequest(method, u, header)
	if err != nil {
		return GroupExplanation{}, err
	}
	r.TransferEncoding = r.Header["Transfer-Encoding"]
	r.ContentLength, _ = strconv.ParseInt(r.Header.Get("Content-Length"), 10, 64)

	routed := h.route().Reaches(r)
	h.route().Cut(h.Cookies, r)
	x := &exchange{h: h, r: r}
	why := x.receive()
	if !routed {
		why = rfc9111.NotRouted
	}
	if why != rfc9111.None { // it may be stored for others
		x.Lookup = node.Lookup{Namespace: h.space, Header: r.Header, Request: rfc9111.Request{Credentials: len(r.Header["Authorization"]) > 0}}
	}
	q := &explain.Question{
		Request: r, Group: h.Group, Purges: routed && h.Purge != nil && slices.Contains(h.Purge.Methods, r.Method),
		Lookup: &x.Lookup, Bypass: why,
	}
	addresses := h.addressing(r)
	if a, keyed := addresses.Of(r, inbound.FieldsOf(r.Header), requestURI(r)); keyed {
		x.Key = a.Key
		q.Keyed, q.Key, q.URL = true, addresses.Describe(a, r, requestURI(r)), urlOf(r)
	}
	return explain.Decide(ctx, h.node, q), nil
}

func explainedRequest(method, u string, header http.Header) (*http.Request, error) {
	r, err := routes.RequestFor(method, rfc9111.Encoded(u), header.Clone())
	if err != nil {
		return nil, err
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	return r, nil
}

func (api *adminAPI) purge(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("purge with POST, not %s", r.Method)}
	}
	p := currentProcess()
	if p == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errNoApp}
	}
	return p.servePurge(w, r)
}

// Interface guards
var _ caddy.AdminRouter = (*adminAPI)(nil)
