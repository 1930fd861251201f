package caddygroupcache

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A PurgeRequest is what POST /groupcache/purge takes. It names what is to be
// purged, by one or more of its fields.
type PurgeRequest struct {
	// The group to purge. Default: all groups.
	Group string `json:"group,omitempty"`

	// URLs as clients ask for them, with scheme, host and query: all variants.
	URLs []string `json:"urls,omitempty"`

	// Beginnings of URLs, with scheme and host.
	Prefixes []string `json:"prefixes,omitempty"`

	// Hosts, with a port for that port only.
	Hosts []string `json:"hosts,omitempty"`

	// Cache tags, exactly.
	Tags []string `json:"tags,omitempty"`

	// Everything.
	All bool `json:"all,omitempty"`

	// Make it stale instead: it may be served once more while it is fetched
	// anew, where staleness is allowed at all.
	Soft bool `json:"soft,omitempty"`
}

// A PurgeResult is what it answers.
type PurgeResult struct {
	// Names the purge in the logs of all nodes.
	ID string `json:"id"`

	// What each live node said.
	Nodes []Acknowledgement `json:"nodes"`
}

const maxPurgeRequest = 1 << 20

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

func (p *process) servePurge(w http.ResponseWriter, r *http.Request) error {
	req, err := readPurgeRequest(w, r)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	purges, err := p.purgesOf(req)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	return purgeAll(p.node, purges, p.logger()).write(w)
}

func (r PurgeResult) write(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	if len(r.missing()) > 0 {
		w.WriteHeader(http.StatusBadGateway)
	}
	return json.NewEncoder(w).Encode(r)
}

// missing names the nodes that have not acknowledged.
func (r PurgeResult) missing() []string {
	missing := []string{}
	for _, a := range r.Nodes {
		if !a.Acknowledged {
			missing = append(missing, a.Name)
		}
	}
	return missing
}

// purgeAll applies purges in the whole cluster.
func purgeAll(n *node, purges []store.Purge, logger *zap.Logger) PurgeResult {
	result := PurgeResult{ID: purgeID(purges[0].ID), Nodes: n.purge(purges)}
	slices.SortFunc(result.Nodes, func(a, b Acknowledgement) int { return strings.Compare(a.Name, b.Name) })
	var named kindCounts
	for _, one := range purges {
		named = append(named, one.Selectors...)
	}
	logger.Info("purged", zap.String("id", result.ID), zap.String("group", purges[0].Group), zap.Bool("soft", purges[0].Soft),
		zap.Object("named", named), zap.Int("nodes", len(result.Nodes)), zap.Strings("not_acknowledged", result.missing()))
	return result
}

func readPurgeRequest(w http.ResponseWriter, r *http.Request) (PurgeRequest, error) {
	var req PurgeRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPurgeRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return req, fmt.Errorf("reading what to purge: %w; it takes group, urls, prefixes, hosts, tags, all and soft, in at most %d bytes", err, maxPurgeRequest)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return req, errors.New("reading what to purge: there is more than one JSON object")
	}
	return req, nil
}

// purgesOf makes purges of a request. Nothing has been purged if it fails.
func (p *process) purgesOf(req PurgeRequest) ([]store.Purge, error) {
	handlers := p.handlersOf(req.Group)
	if req.Group != "" && len(handlers) == 0 {
		return nil, fmt.Errorf("group %q: no handler of the running config has it", req.Group)
	}
	var selectors []store.Selector
	add := func(kind store.Kind, value string) {
		selectors = append(selectors, store.Selector{Kind: kind, Value: value})
	}
	for _, text := range req.URLs {
		u, err := purgeURL(text, true, peer.MaxSelectorLength)
		if err != nil {
			return nil, fmt.Errorf("url %.200q: %w", text, err)
		}
		add(store.URL, u)
		// What a key template ignores of the URL may have been another in the
		// request that fetched the response.
		for _, h := range handlers {
			for _, k := range h.keysOfURL(u) {
				selectors = append(selectors, selectorOf(k))
			}
		}
	}
	for _, text := range req.Prefixes {
		u, err := purgeURL(text, false, peer.MaxSelectorLength)
		if err != nil {
			return nil, fmt.Errorf("prefix %.200q: %w", text, err)
		}
		add(store.Prefix, u)
	}
	for _, host := range req.Hosts {
		u, err := url.Parse("http://" + host + "/")
		if err != nil || u.Host != host || host == "" || len(host) > 300 {
			return nil, fmt.Errorf("host %.200q: a host such as example.com, or example.com:8080", host)
		}
		add(store.Host, strings.ToLower(host))
	}
	for _, tag := range req.Tags {
		if tag != strings.TrimSpace(tag) || tag == "" || len(tag) > rfc9111.MaxTagLength {
			return nil, fmt.Errorf("tag %.200q: 1 to %d bytes, without space around them", tag, rfc9111.MaxTagLength)
		}
		add(store.Tag, tag)
	}
	if req.All {
		add(store.All, "")
	}
	if len(selectors) == 0 {
		return nil, errors.New("nothing is named to purge: give urls, prefixes, hosts, tags, or all")
	}
	return inPurges(req, selectors), nil
}

// inPurges divides selectors so that each purge fits a message.
func inPurges(req PurgeRequest, selectors []store.Selector) []store.Purge {
	var purges []store.Purge
	for len(selectors) > 0 {
		n, size := 0, 0
		for n < len(selectors) && n < peer.MaxSelectors && (n == 0 || size+len(selectors[n].Value)+8 <= peer.MaxPurgeBytes) {
			size += len(selectors[n].Value) + 8
			n++
		}
		purges = append(purges, store.Purge{ID: store.NewPurgeID(), Group: req.Group, Soft: req.Soft, Selectors: selectors[:n]})
		selectors = selectors[n:]
	}
	return purges
}

// purgeURL brings a URL into the form of store.URLOf, or a beginning of one that
// has at least its host.
func purgeURL(text string, whole bool, limit int) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.Unwrap(err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", errors.New("it takes the scheme and the host, as in https://example.com/page")
	case u.User != nil, strings.Contains(text, "#"):
		return "", errors.New("user names and fragments are no part of what is asked for")
	case len(text) > limit:
		return "", fmt.Errorf("it is longer than %d bytes", limit)
	}
	_, uri, _ := strings.Cut(text, "://")
	if i := strings.IndexAny(uri, "/?"); i >= 0 {
		uri = uri[i:]
	} else {
		uri = ""
	}
	switch {
	case !strings.HasPrefix(uri, "/") && whole:
		uri = "/" + uri
	case uri == "" && !whole:
		// A prefix ends where it ends: this one amid the host.
		return u.Scheme + "://" + strings.ToLower(u.Host), nil
	}
	return store.URLOf(u.Scheme, u.Host, uri), nil
}

// keysOfURL returns the keys under which a URL's responses can be stored, as far
// as the URL decides about that.
func (h *Handler) keysOfURL(u string) []store.Key {
	r, err := requestFor(http.MethodGet, u, nil)
	if err != nil {
		return nil
	}
	return h.keysOf(r, r.RequestURI)
}

// requestFor returns a request for a URL of store.URLOf, as it would come from a
// client. Nobody has sent it.
func requestFor(method, u string, header http.Header) (*http.Request, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, u, nil)
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(u, "://")
	r.RequestURI = rest[strings.IndexByte(rest, '/'):]
	if r.URL.Scheme == "https" {
		r.TLS = new(tls.ConnectionState)
	}
	if header != nil {
		r.Header = header
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nobody{make(http.Header)}, nil), nil
}
