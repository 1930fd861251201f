// Package storing decides by a handler's policy whether a response is stored (RFC 9111
// §3), and makes an entry of it.
package storing

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Policy says which responses are stored, and what is kept of them.
type Policy struct {
	rfc9111.Options
	MaxBodySize int64    // in bytes
	Tags        []string // names of the fields that carry cache tags, canonical
	ExposeTags  bool     // clients get these fields too
	Rules       []Rule
	Query       *inbound.Query // what of a URL belongs to the key; nil: all of its query

	rule *Rule // see Under
}

// Judge decides, for what Under has returned, whether a response may be stored whose body is no larger than the
// limit. Length is what it states, or -1.
func (p *Policy) Judge(x rfc9111.Exchange, limit int64) (fresh rfc9111.Freshness, length int64, why rfc9111.Reason) {
	switch {
	case p.rule != nil && p.rule.NoStore:
		return fresh, -1, rfc9111.Rule
	case len(x.Response["Trailer"]) > 0:
		return fresh, -1, rfc9111.Trailers
	case x.Status == http.StatusNotModified:
		return fresh, -1, rfc9111.StrayNotModified // the client's own precondition: says nothing about the URL
	}
	fresh, why = rfc9111.Storable(x, p.Options)
	stated := x.Response.Get("Content-Length")
	if why != rfc9111.None || stated == "" {
		return fresh, -1, why
	}
	length, err := strconv.ParseInt(stated, 10, 64)
	switch {
	case err != nil || length < 0:
		return fresh, -1, rfc9111.TooLarge
	case length > limit:
		return fresh, -1, p.TooLarge(length)
	}
	return fresh, length, rfc9111.None
}

// TooLarge names why a body of a size is not stored as a whole.
func (p *Policy) TooLarge(size int64) rfc9111.Reason {
	if size > p.MaxBodySize {
		return rfc9111.TooLarge
	}
	return rfc9111.PartsOnly
}

// NewEntry makes an entry of a storable response to a request for a target.
func (p *Policy) NewEntry(x rfc9111.Exchange, fresh rfc9111.Freshness, r *http.Request, uri string) (*store.Entry, rfc9111.Reason) {
	tags, few := rfc9111.Tags(x.Response, p.Tags)
	groups, fewGroups := rfc9111.CacheGroups(x.Response)
	if !few || !fewGroups {
		return nil, rfc9111.HeaderTooBig
	}
	if !rfc9111.TakesCodings(r.Header, x.Response) {
		return nil, rfc9111.VaryMismatch // it would be as wrong for each other request like this one
	}
	p.HideTags(x.Response)
	e, why := store.NewEntry(x.Status, rfc9111.StoredHeader(x.Response, p.Options), r.Header, fresh, x.Sent)
	if why == rfc9111.None {
		uri = p.labelOf(uri)
		if r.Method == rfc9111.MethodQuery {
			groups = append(groups, inbound.QueryGroup(uri))
		}
		if rfc9111.ParseSearchVariance(x.Response) != nil {
			groups = append(groups, pathGroup(uri))
		}
		if p.rule != nil {
			groups = append(groups, ruleLabel+p.rule.Name)
		}
		if len(groups) > rfc9111.MaxTags { // of which other nodes take no more
			return nil, rfc9111.HeaderTooBig
		}
		slices.Sort(groups)
		e.SetLabels(inbound.URLOf(r, uri), tags, groups)
	}
	return e, why
}

// NewEntryOfPart makes an entry of a response of which the upstream has sent the first
// chunk, with a size for the whole, to a request for a target.
func (p *Policy) NewEntryOfPart(x rfc9111.Exchange, size int64, r *http.Request, uri string) (*store.Entry, rfc9111.Reason) {
	x.Status, x.Response = http.StatusOK, rfc9111.Whole(x.Response, size)
	p, x = p.Under(x)
	switch {
	case p.rule != nil && p.rule.NoStore:
		return nil, rfc9111.Rule
	case size > p.MaxBodySize:
		return nil, rfc9111.TooLarge
	case len(x.Response["Trailer"]) > 0:
		return nil, rfc9111.Trailers
	case len(x.Response["No-Vary-Search"]) > 0:
		return nil, rfc9111.NoVarySearch
	}
	fresh, why := rfc9111.Storable(x, p.Options)
	if why != rfc9111.None {
		return nil, why
	}
	x.Response = rfc9111.Apart(x.Response)
	return p.NewEntry(x, fresh, r, uri)
}

// Shareable reports whether a part of a response with a size for the whole may be stored.
func (p *Policy) Shareable(x rfc9111.Exchange, size int64) bool {
	x.Status, x.Response = http.StatusOK, rfc9111.Whole(x.Response, size)
	p, x = p.Under(x)
	_, why := rfc9111.Storable(x, p.Options)
	return why == rfc9111.None && (p.rule == nil || !p.rule.NoStore)
}

// CheckTagFields returns an error if a name can't be one of a field that carries tags.
func CheckTagFields(names []string) error {
	for _, name := range names {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("tags %q: no name of a response field, as Cache-Tag is: write spaces between several", name)
		}
	}
	return nil
}

// HideTags removes the fields that are for this cache only.
func (p *Policy) HideTags(header http.Header) {
	if p.ExposeTags {
		return
	}
	for _, name := range p.Tags {
		delete(header, name)
	}
}

// maxCause bounds what is remembered of a field.
const maxCause = 160

// Rejection returns what is remembered of a response that is not stored.
func (p *Policy) Rejection(why rfc9111.Reason, status int, request, response http.Header) node.Rejection {
	field, value := rfc9111.Cause(why, request, response, p.Targeted)
	if r := p.ruleAbout(status, response); why == rfc9111.Rule && r != nil {
		field, value = "response", r.Name
	}
	if len(value) > maxCause {
		value = value[:maxCause] + "…"
	}
	return node.Rejection{Why: why, Status: status, Field: field, Value: strings.Clone(value)}
}
