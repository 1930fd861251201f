package caddygroupcache

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

const (
	defaultGroup       = "default"
	defaultMaxBodySize = 16 << 20
	defaultFillTimeout = time.Minute
	defaultPeerTimeout = 250 * time.Millisecond
	defaultCacheName   = "groupcache"
	ignoreDirectives   = "ignore"
	honorDirectives    = "honor"
	storeCookies       = "store"
	refuseCookies      = "refuse"
	ignoreCredentials  = "ignore"
	honorCredentials   = "honor"
	cacheStatusOff     = "off"
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
	// Handlers of one group share entries; all groups share the node's
	// memory. Handlers of one group must agree on all other fields. Default:
	// default.
	Group string `json:"group,omitempty"`

	// What tells responses apart, with placeholders. Default: scheme, host
	// and request URI as the client sent them.
	Key string `json:"key,omitempty"`

	// Which parts of the query belong to the default key.
	Query *Query `json:"query,omitempty"`

	// Freshness for responses that state none. Default: none, so that such
	// responses are stored only with what RFC 9111 §4.2.2 allows.
	TTL []TTL `json:"ttl,omitempty"`

	// What applies where the response does not say.
	Stale *Stale `json:"stale,omitempty"`

	// Larger responses stream through and are not stored, nor are parts of
	// them, in bytes. The whole of a response that is larger than a quarter of
	// cache_size times the number of nodes isn't either, but parts of it are.
	// At most 1 TiB. Default: 16 MiB.
	MaxBodySize int64 `json:"max_body_size,omitempty"`

	// Response fields that carry cache tags. Default: Surrogate-Key and
	// Cache-Tag.
	Tags []string `json:"tags,omitempty"`

	// Whether these fields are sent to clients. Default: false.
	ExposeTags bool `json:"expose_tags,omitempty"`

	// Lets clients purge by requests with a method of its own. Default: nobody
	// may, and such methods go upstream like any other.
	Purge *InBandPurge `json:"purge,omitempty"`

	// Whether the client's Cache-Control counts: honor or ignore.
	// Default: honor.
	RequestDirectives string `json:"request_directives,omitempty"`

	// Whether responses that set a cookie are stored: refuse, or store. What
	// is stored is served with the cookie, to every client. Default: refuse.
	SetCookie string `json:"set_cookie,omitempty"`

	// Whether the Authorization field of a request counts: honor, so that such
	// requests take part only where the response allows it (RFC 9111 §3.5), or
	// ignore, for upstreams whose responses do not depend on who asks.
	// Default: honor.
	Authorization string `json:"authorization,omitempty"`

	// A fill that takes longer is given up; its client is still served.
	// Default: 60s.
	FillTimeout caddy.Duration `json:"fill_timeout,omitempty"`

	// How long a request waits for a silent owner before it goes to the
	// upstream itself. Default: 250ms.
	PeerTimeout caddy.Duration `json:"peer_timeout,omitempty"`

	// The cache's name in the Cache-Status field, or off.
	// Default: groupcache.
	CacheStatus string `json:"cache_status,omitempty"`

	logger    *zap.Logger
	node      *node
	space     *store.Namespace
	counters  *counters
	policy    rfc9111.Options
	cacheName string // "": no Cache-Status
	hitLines  *hitLines
	purgers   purgers
}

// Query says which parameters of the query belong to the key. At most one of
// Ignore and Only.
type Query struct {
	// Names of parameters, or prefixes of names with a * at the end, that
	// make no difference.
	Ignore []string `json:"ignore,omitempty"`

	// The only parameters that make a difference.
	Only []string `json:"only,omitempty"`

	// Whether the order of parameters makes no difference. Default: false.
	Sort bool `json:"sort,omitempty"`
}

// TTL is a freshness for responses that state none.
type TTL struct {
	// How long they are fresh.
	Duration caddy.Duration `json:"duration"`

	// For which status codes. Default: those that RFC 9110 §15.1 calls
	// heuristically cacheable.
	Status []int `json:"status,omitempty"`
}

// Stale allows to serve stale responses (RFC 5861).
type Stale struct {
	// How long after its freshness a response may be served while it is
	// fetched anew.
	WhileRevalidate caddy.Duration `json:"while_revalidate,omitempty"`

	// How long after its freshness a response may be served instead of an
	// error.
	IfError caddy.Duration `json:"if_error,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.groupcache", New: func() caddy.Module { return new(Handler) }}
}

// Provision fills in the defaults and finds the node.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.setDefaults()
	if err := h.check(); err != nil {
		return err
	}
	h.policy = h.options()
	app, err := ctx.App("groupcache")
	if err != nil {
		return fmt.Errorf("loading the groupcache app: %w", err)
	}
	if h.Purge != nil {
		if h.purgers, err = h.Purge.resolve(caddy.NewReplacer()); err != nil {
			return err
		}
	}
	a := app.(*App)
	if err := a.join(h); err != nil {
		return err
	}
	h.node = a.process.node
	h.named()
	h.counters = a.process.counters.of(h.Group)
	if h.space = h.node.store.Namespace(h.Group); h.space == nil {
		return fmt.Errorf("group %s: too many groups since Caddy started: restart it", h.Group)
	}
	return nil
}

// join makes sure that handlers of one group treat responses alike.
func (a *App) join(h *Handler) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := a.groups[h.Group]; other != nil && !other.sameSettings(h) {
		return fmt.Errorf("group %s is configured twice with different settings: give one of the handlers another group, or both the same settings", h.Group)
	}
	a.groups[h.Group] = h
	return nil
}

func (h *Handler) sameSettings(o *Handler) bool {
	return h.Key == o.Key && h.MaxBodySize == o.MaxBodySize && h.RequestDirectives == o.RequestDirectives &&
		h.SetCookie == o.SetCookie && h.Authorization == o.Authorization &&
		h.FillTimeout == o.FillTimeout && h.PeerTimeout == o.PeerTimeout && h.CacheStatus == o.CacheStatus &&
		slices.Equal(h.Tags, o.Tags) && h.ExposeTags == o.ExposeTags && reflect.DeepEqual(h.Query, o.Query) &&
		reflect.DeepEqual(h.Purge, o.Purge) && reflect.DeepEqual(h.TTL, o.TTL) && reflect.DeepEqual(h.Stale, o.Stale)
}

func (h *Handler) setDefaults() {
	if h.Group == "" {
		h.Group = defaultGroup
	}
	if h.MaxBodySize == 0 {
		h.MaxBodySize = defaultMaxBodySize
	}
	if len(h.Tags) == 0 {
		h.Tags = []string{"Surrogate-Key", "Cache-Tag"}
	}
	for i, name := range h.Tags {
		h.Tags[i] = http.CanonicalHeaderKey(name)
	}
	if h.Purge != nil && len(h.Purge.Methods) == 0 {
		h.Purge.Methods = []string{"PURGE"}
	}
	if h.RequestDirectives == "" {
		h.RequestDirectives = honorDirectives
	}
	if h.SetCookie == "" {
		h.SetCookie = refuseCookies
	}
	if h.Authorization == "" {
		h.Authorization = honorCredentials
	}
	if h.FillTimeout == 0 {
		h.FillTimeout = caddy.Duration(defaultFillTimeout)
	}
	if h.PeerTimeout == 0 {
		h.PeerTimeout = caddy.Duration(defaultPeerTimeout)
	}
	if h.CacheStatus == "" {
		h.CacheStatus = defaultCacheName
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
	case !isToken(h.CacheStatus):
		return fmt.Errorf("cache_status %q: a name of letters, digits and -_.*, beginning with a letter, or off", h.CacheStatus)
	case h.Query != nil && h.Key != "":
		return fmt.Errorf("query is about the default key and has no effect on key %q: leave one of them out", h.Key)
	case h.Query != nil && len(h.Query.Ignore) > 0 && len(h.Query.Only) > 0:
		return fmt.Errorf("query ignore and query only exclude each other: leave one of them out")
	case h.Stale != nil && (h.Stale.IfError < 0 || h.Stale.WhileRevalidate < 0):
		return fmt.Errorf("stale: a negative duration")
	}
	if h.Purge != nil {
		if err := h.Purge.check(); err != nil {
			return err
		}
	}
	for _, ttl := range h.TTL {
		if ttl.Duration < 0 {
			return fmt.Errorf("ttl %s is negative", time.Duration(ttl.Duration))
		}
		for _, status := range ttl.Status {
			if status < 200 || status > 599 {
				return fmt.Errorf("ttl %s for status %d: no final status code", time.Duration(ttl.Duration), status)
			}
		}
	}
	return nil
}

// isToken reports whether s may stand in Cache-Status as it is (sf-token, RFC
// 8941 §3.3.4, a little stricter).
func isToken(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || strings.IndexByte("-_.*", c) >= 0)) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (h *Handler) options() rfc9111.Options {
	o := rfc9111.Options{
		TTL:                     make(map[int]time.Duration),
		IgnoreRequestDirectives: h.RequestDirectives == ignoreDirectives,
		StoreSetCookie:          h.SetCookie == storeCookies,
		IgnoreAuthorization:     h.Authorization == ignoreCredentials,
	}
	for _, ttl := range h.TTL {
		if len(ttl.Status) == 0 {
			o.TTL[0] = time.Duration(ttl.Duration)
		}
		for _, status := range ttl.Status {
			o.TTL[status] = time.Duration(ttl.Duration)
		}
	}
	if h.Stale != nil {
		o.StaleWhileRevalidate = time.Duration(h.Stale.WhileRevalidate)
		o.StaleIfError = time.Duration(h.Stale.IfError)
	}
	return o
}

// resolve fills in the defaults and placeholders of the cluster's options, and
// checks them.
func (a *App) resolve(repl *caddy.Replacer) (clusterConfig, error) {
	var c clusterConfig
	var err error
	fillIn := func(s string) string {
		filled, replaceErr := repl.ReplaceOrErr(s, true, true)
		if replaceErr != nil && err == nil {
			err = fmt.Errorf("%q: %w", s, replaceErr)
		}
		return filled
	}
	a.Name = fillIn(a.Name)
	if a.Persist != nil {
		a.Persist.Path = cmp.Or(fillIn(a.Persist.Path), filepath.Join(caddy.AppDataDir(), "groupcache"))
	}
	c.gossip, c.peers = fillIn(a.Gossip), fillIn(a.Peers)
	if a.Advertise != nil {
		c.advertiseGossip, c.advertisePeers = fillIn(a.Advertise.Gossip), fillIn(a.Advertise.Peers)
	}
	for _, seed := range a.Join {
		c.join = append(c.join, fillIn(seed))
	}
	var secrets []string
	for _, s := range a.Secret {
		secrets = append(secrets, fillIn(s))
	}
	if err != nil {
		return c, err
	}
	c.insecure = a.Insecure
	c.enabled = c.gossip != "" || c.peers != "" || a.Advertise != nil || len(c.join) > 0 ||
		a.Name != "" || len(secrets) > 0 || c.insecure
	if !c.enabled {
		return c, nil
	}
	if c.keys, err = readSecrets(secrets); err != nil {
		return c, err
	}
	if err := c.addresses(); err != nil {
		return c, err
	}
	for _, seed := range c.join {
		if err := checkSeed(seed); err != nil {
			return c, err
		}
	}
	if a.Name != "" {
		if err := checkNodeName(a.Name); err != nil {
			return c, fmt.Errorf("name %q: %w", a.Name, err)
		}
	}
	return c, nil
}

// addresses settles what is bound and what is advertised.
func (c *clusterConfig) addresses() error {
	if c.gossip == "" {
		c.gossip = defaultGossip
	}
	gossip, err := parseAddress("gossip", c.gossip, gossipPort)
	if err != nil {
		return err
	}
	if c.peers == "" {
		c.peers = net.JoinHostPort(gossip.Addr().String(), peersPort)
	}
	peers, err := parseAddress("peers", c.peers, peersPort)
	if err != nil {
		return err
	}
	for option, bound := range map[string]netip.AddrPort{"gossip": gossip, "peers": peers} {
		if !bound.Addr().IsLoopback() && len(c.keys) == 0 && !c.insecure {
			return fmt.Errorf("%s %s is not a loopback address, and without a secret whoever reaches it could read and write the cache: add a secret, made with caddy groupcache keygen, or use 127.0.0.1 or [::1], or add insecure if nobody else can reach this network", option, bound)
		}
	}
	c.gossip, c.peers = gossip.String(), peers.String()
	if c.advertiseGossip, err = advertised("gossip", c.advertiseGossip, gossip, gossipPort); err != nil {
		return err
	}
	c.advertisePeers, err = advertised("peers", c.advertisePeers, peers, peersPort)
	return err
}

// advertised returns the address that other nodes dial.
func advertised(option, advertise string, bound netip.AddrPort, port string) (string, error) {
	if advertise == "" {
		if bound.Addr().IsUnspecified() {
			return "", fmt.Errorf("%s %s is no address that other nodes can dial: add an advertise line that says which they can", option, bound)
		}
		return bound.String(), nil
	}
	addr, err := parseAddress("advertise", advertise, port)
	if err != nil {
		return "", err
	}
	if addr.Addr().IsUnspecified() {
		return "", fmt.Errorf("advertise %s is no address that other nodes can dial", addr)
	}
	return addr.String(), nil
}

// parseAddress reads host, host:port or :port, where the host is an IP address
// or localhost.
func parseAddress(option, s, defaultPort string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), defaultPort
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s %q: the host must be an IP address or localhost, as in 10.0.0.1:%s", option, s, defaultPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("%s %q: the port must be a number from 1 to 65535", option, s)
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

func checkSeed(seed string) error {
	_, _, err := parseSeed(seed)
	return err
}

// uniqueName returns a readable name that no other process has.
func uniqueName() string {
	host, err := os.Hostname()
	if err != nil || checkNodeName(host) != nil {
		host = "node"
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return host[:min(len(host), 100)] + "-" + hex.EncodeToString(b[:])
}

// parseSize reads a size as Caddy writes it.
func parseSize(s string) (int64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > 1<<62 {
		return 0, fmt.Errorf("%q is not a size such as 512MiB", s)
	}
	return int64(n), nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
