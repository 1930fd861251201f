package caddygroupcache

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/cachestatus"
	"github.com/caddy-groupcache/caddy-groupcache/internal/express"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/purging"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/internal/storing"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
	"github.com/caddy-groupcache/caddy-groupcache/rules"
)

const (
	defaultGroup       = "default"
	defaultMaxBodySize = 16 << 20
	defaultCacheName   = "groupcache"
	ignoreDirectives   = "ignore"
	honorDirectives    = "honor"
	storeCookies       = "store"
	refuseCookies      = "refuse"
	ignoreCredentials  = "ignore"
	honorCredentials   = "honor"
	cacheStatusOff     = "off"
	queryMethodOn      = "on"
	queryMethodOff     = "off"
	maxGroupName       = 64
)

// Handler is an HTTP cache that all nodes of the cluster share. Put it before
// the handlers whose responses it is to store, and after those that decide who
// may see them.
//
// Placeholders that it sets: `{http.groupcache.status}` (hit, stale,
// revalidated, miss, collapsed, bypass) and `{http.groupcache.detail}` (where
// a hit came from, or the reason why it is none).
type Handler struct {
	// Handlers of one group are purged together, and share entries if they
	// agree on key, query, targeted, set_cookie, authorization, tags and
	// expose_tags; in all else each goes by its own. All groups share the node's
	// memory. Default: default.
	Group string `json:"group,omitempty"`

	// What tells responses apart, with placeholders. Default: scheme, host
	// and request URI as the client sent them.
	Key string `json:"key,omitempty"`

	// Which parts of the query belong to the default key.
	Query *Query `json:"query,omitempty"`

	// Which cookies of a request count: the upstream gets no others, so that responses
	// which vary by Cookie are shared by all who differ in others. Default: all.
	Cookies *Cookies `json:"cookies,omitempty"`

	// Freshness for responses that state none. Default: none, so that such
	// responses are stored only with what RFC 9111 §4.2.2 allows.
	TTL []TTL `json:"ttl,omitempty"`

	// What applies where the response does not say. must-revalidate,
	// proxy-revalidate and no-cache say that it must not be served stale;
	// s-maxage does so only if max-age has the same number.
	Stale *Stale `json:"stale,omitempty"`

	// Larger responses stream through and are not stored, nor are parts of
	// them, in bytes. The whole of a response that is larger than a quarter of
	// cache_size times the number of nodes isn't either, but parts of it are.
	// At most 1 TiB. Default: 16 MiB.
	MaxBodySize int64 `json:"max_body_size,omitempty"`

	// Response fields that carry cache tags, which white space and commas
	// separate. Default: Surrogate-Key and Cache-Tag.
	Tags []string `json:"tags,omitempty"`

	// Whether these fields are sent to clients. Default: false.
	ExposeTags bool `json:"expose_tags,omitempty"`

	// Response fields that speak to this cache instead of Cache-Control and
	// Expires, most wanted first (RFC 9213 §2.2). The first of them that can be
	// read and is not empty counts. Surrogate-Control, which has another syntax,
	// may be among them. They are passed on. Default: Groupcache-Cache-Control,
	// CDN-Cache-Control and Surrogate-Control.
	Targeted []string `json:"targeted,omitempty"`

	// Lets clients purge by requests with a method of its own. Default: nobody
	// may, and such methods go upstream like any other.
	Purge *InBandPurge `json:"purge,omitempty"`

	// What is stored of some responses, and for how long. The first rule whose matcher
	// fits is the one about a response. What is stored changes, never what the client
	// gets whose request is fetched.
	Response []*rules.Rule `json:"response,omitempty"`

	// Whether the client's Cache-Control counts: honor or ignore.
	// Default: honor.
	RequestDirectives string `json:"request_directives,omitempty"`

	// Whether responses that set a cookie, or have Clear-Site-Data, are stored:
	// refuse, or store. What is stored is served with the cookie, to every
	// client. Default: refuse.
	SetCookie string `json:"set_cookie,omitempty"`

	// Whether the Authorization field of a request counts: honor, so that such
	// requests take part only where the response allows it (RFC 9111 §3.5), or
	// ignore, for upstreams whose responses do not depend on who asks.
	// Default: honor.
	Authorization string `json:"authorization,omitempty"`

	// A fill that takes longer is given up; its client is still served. It is
	// also how long a request waits for others, all in all. Default: 60s.
	FillTimeout caddy.Duration `json:"fill_timeout,omitempty"`

	// How long a request waits for a silent owner before it goes to the
	// upstream itself. Default: 250ms.
	PeerTimeout caddy.Duration `json:"peer_timeout,omitempty"`

	// Whether responses to QUERY (RFC 10008) are stored: on, or off. Their
	// key is the default one, or that of the template, with the request's content, its
	// Content-Type, Content-Encoding and Content-Language. Requests of more than
	// 64 KiB pass, and so do those with Range or Incremental; responses of more than
	// 1 MiB are not stored. Default: on.
	QueryMethod string `json:"query_method,omitempty"`

	// The cache's name in the Cache-Status field, or off.
	// Default: groupcache.
	CacheStatus string `json:"cache_status,omitempty"`

	// Whether hits are answered by the express lane of the server, before Caddy's HTTP
	// server sees the request. Needs the listener wrapper groupcache. Default: false.
	Express bool `json:"express,omitempty"`

	logger     *zap.Logger
	app        *App   // whose group this is one of; nil: it is alone in it
	terms      string // what of the settings is part of the key
	around     *lazyRoute
	node       *node.Node
	denials    *purgeRefusals
	unnamed    *atomic.Bool // some handler leaves no Cache-Status
	space      *store.Namespace
	counters   *counters
	policy     storing.Policy
	cacheName  string // "": no Cache-Status
	loopMember string // what it adds to CDN-Loop
	hits       *cachestatus.Hits
	purgers    purging.Senders
	front      *express.Front // what Caddy sets in each response
}

// Cookies says which cookies of a request the upstream gets.
type Cookies = inbound.Cookies

// Query says which parameters of the query belong to the key.
type Query = inbound.Query

// TTL is a freshness for responses that state none.
type TTL = rules.TTL

// Stale allows to serve stale responses (RFC 5861).
type Stale struct {
	// How long after its freshness a response may be served while it is
	// fetched anew.
	WhileRevalidate caddy.Duration `json:"while_revalidate,omitempty"`

	// How long after its freshness a response may be served instead of an
	// error.
	IfError caddy.Duration `json:"if_error,omitempty"`

	// How long a request waits for the upstream's header before the response is
	// served that may be served instead of an error. The fetch goes on in the
	// background. Default: as long as it takes.
	After caddy.Duration `json:"after,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.groupcache", New: func() caddy.Module { return new(Handler) }}
}

func (h *Handler) setDefaults() {
	h.Group = cmp.Or(h.Group, defaultGroup)
	h.MaxBodySize = cmp.Or(h.MaxBodySize, defaultMaxBodySize)
	h.RequestDirectives = cmp.Or(h.RequestDirectives, honorDirectives)
	h.SetCookie = cmp.Or(h.SetCookie, refuseCookies)
	h.Authorization = cmp.Or(h.Authorization, honorCredentials)
	h.FillTimeout = cmp.Or(h.FillTimeout, caddy.Duration(node.DefaultFillTimeout))
	h.PeerTimeout = cmp.Or(h.PeerTimeout, caddy.Duration(node.DefaultPeerTimeout))
	h.QueryMethod = cmp.Or(h.QueryMethod, queryMethodOn)
	h.CacheStatus = cmp.Or(h.CacheStatus, defaultCacheName)
	if len(h.Tags) == 0 {
		h.Tags = defaultTags()
	}
	for i, name := range h.Tags {
		h.Tags[i] = http.CanonicalHeaderKey(name)
	}
	if len(h.Targeted) == 0 {
		h.Targeted = rfc9111.DefaultTargets()
	}
	h.Targeted = slices.Clone(h.Targeted) // what the Caddyfile says stays as it is written
	for i, name := range h.Targeted {
		h.Targeted[i] = http.CanonicalHeaderKey(name)
	}
	if h.Purge != nil && len(h.Purge.Methods) == 0 {
		h.Purge.Methods = []string{"PURGE"}
	}
}

func (h *Handler) check() error {
	switch {
	case len(h.Group) > maxGroupName:
		return fmt.Errorf("group name of %d bytes is too long: at most %d", len(h.Group), maxGroupName)
	case h.MaxBodySize < 0:
		return fmt.Errorf("max_body_size %d is negative", h.MaxBodySize)
	case h.MaxBodySize > store.MaxBodySize:
		return fmt.Errorf("max_body_size %s is more than can be stored: at most 1TiB", humanize.IBytes(uint64(h.MaxBodySize)))
	case h.FillTimeout < 0:
		return fmt.Errorf("fill_timeout %s is negative", time.Duration(h.FillTimeout))
	case h.PeerTimeout < 0:
		return fmt.Errorf("peer_timeout %s is negative", time.Duration(h.PeerTimeout))
	case h.RequestDirectives != honorDirectives && h.RequestDirectives != ignoreDirectives:
		return fmt.Errorf("request_directives %q: honor or ignore", h.RequestDirectives)
	case h.SetCookie != refuseCookies && h.SetCookie != storeCookies:
		return fmt.Errorf("set_cookie %q: refuse or store", h.SetCookie)
	case h.Authorization != honorCredentials && h.Authorization != ignoreCredentials:
		return fmt.Errorf("authorization %q: honor or ignore", h.Authorization)
	case h.QueryMethod != queryMethodOn && h.QueryMethod != queryMethodOff:
		return fmt.Errorf("query_method %q: on or off", h.QueryMethod)
	case !cachestatus.IsName(h.CacheStatus):
		return fmt.Errorf("cache_status %q: a name of letters, digits and -_.*, beginning with a letter, or off", h.CacheStatus)
	case h.Query != nil && h.Key != "":
		return fmt.Errorf("query is about the default key and has no effect on key %q: leave one of them out", h.Key)
	case h.Stale != nil && (h.Stale.IfError < 0 || h.Stale.WhileRevalidate < 0 || h.Stale.After < 0):
		return fmt.Errorf("stale: a negative duration")
	case h.Stale != nil && h.Stale.After >= h.FillTimeout:
		return fmt.Errorf("stale after %s has no effect beside fill_timeout %s, which ends the wait before: it has to be shorter", time.Duration(h.Stale.After), time.Duration(h.FillTimeout))
	}
	if err := cmp.Or(h.Query.Check(), h.Cookies.Check(), checkTargeted(h.Targeted), storing.CheckTagFields(h.Tags), rules.Check(h.Response, h.Targeted)); err != nil {
		return err
	}
	if h.Purge != nil {
		if err := h.Purge.check(); err != nil {
			return err
		}
	}
	_, err := rules.Lifetimes(h.TTL)
	return err
}

// checkTargeted checks a target list, whose names are canonical.
func checkTargeted(names []string) error {
	for i, name := range names {
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return fmt.Errorf("targeted %q: no name of a response field, as CDN-Cache-Control is", name)
		case name == "Cache-Control" || name == "Expires" || name == "Pragma":
			return fmt.Errorf("targeted %s: it speaks to all caches, and counts where no targeted field does: name only fields such as CDN-Cache-Control", name)
		case slices.Contains(names[:i], name):
			return fmt.Errorf("targeted %s: named twice: the first one counts, leave the other out", name)
		}
	}
	return nil
}

// options returns what the options say of which responses are stored, and how.
func (h *Handler) options() storing.Policy {
	ttl, _ := rules.Lifetimes(h.TTL) // check has refused what is none
	o := rfc9111.Options{
		TTL:                     ttl,
		IgnoreRequestDirectives: h.RequestDirectives == ignoreDirectives,
		StoreSetCookie:          h.SetCookie == storeCookies,
		Targeted:                h.Targeted,
		IgnoreAuthorization:     h.Authorization == ignoreCredentials,
	}
	if h.Stale != nil {
		o.StaleWhileRevalidate = time.Duration(h.Stale.WhileRevalidate)
		o.StaleIfError = time.Duration(h.Stale.IfError)
	}
	return storing.Policy{Options: o, MaxBodySize: h.MaxBodySize, Tags: h.Tags, ExposeTags: h.ExposeTags, Rules: rules.Of(h.Response), Query: h.Query}
}

func defaultTags() []string { return []string{"Surrogate-Key", "Cache-Tag"} }

// InBandPurge lets clients purge with requests such as PURGE /path, as plugins
// of content management systems send them. Such a request purges its own URL
// under both schemes; URLs that begin with it, if it ends in * or .*; or if it has
// a field of cache tags (see Handler.Tags), responses with these tags. It purges
// the handler's group, on all nodes. With Fastly-Soft-Purge: 1 it makes stale. A
// request that is not understood gets 400 or 501 and purges nothing; docs/purge.md
// has the requests that are understood.
//
// It takes Tokens or From, or one might as well switch the cache off. If both
// are there, both must fit.
type InBandPurge struct {
	// The methods that purge, in capitals. Default: PURGE.
	Methods []string `json:"methods,omitempty"`

	// Who sends one of these as Authorization: Bearer may purge. Placeholders
	// are allowed. At least 16 bytes each.
	Tokens []string `json:"tokens,omitempty"`

	// Who comes from one of these addresses or ranges may purge. The client's
	// address is that which Caddy takes it for, but a request by way of one of
	// trusted_proxies only counts with trusted_proxies_strict: without it, Caddy
	// takes the client's word for its address.
	From []string `json:"from,omitempty"`
}

func (p *InBandPurge) check() error {
	for _, m := range p.Methods {
		if err := purging.CheckMethod(m); err != nil {
			return err
		}
	}
	if len(p.Tokens) == 0 && len(p.From) == 0 {
		return errors.New("purge: everybody could: say who may, by token or from")
	}
	return checkRanges(p.From)
}

// lazyRoute finds a handler's route at its first request: while it is provisioned, the
// routes are too.
type lazyRoute struct {
	ctx  caddy.Context
	once sync.Once
	is   *routes.Route
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
