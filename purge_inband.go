package caddygroupcache

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// InBandPurge lets clients purge with requests such as PURGE /path, as plugins
// of content management systems send them. Such a request purges its own URL, or
// if it has a field of cache tags (see Handler.Tags) responses with these tags,
// of the handler's group, on all nodes. With Fastly-Soft-Purge: 1 it makes stale.
//
// It takes Tokens or From, or one might as well switch the cache off. If both
// are there, both must fit.
type InBandPurge struct {
	// The methods that purge. Default: PURGE.
	Methods []string `json:"methods,omitempty"`

	// Who sends one of these as Authorization: Bearer may purge. Placeholders
	// are allowed. At least 16 bytes each.
	Tokens []string `json:"tokens,omitempty"`

	// Who comes from one of these addresses or ranges may purge. The client's
	// address is that which Caddy takes it for: see trusted_proxies.
	From []string `json:"from,omitempty"`
}

const minPurgeToken = 16

// purgers are those who may purge.
type purgers struct {
	tokens [][sha256.Size]byte // their digests, so that all are compared in the same time
	ranges []netip.Prefix
}

func (p *InBandPurge) check() error {
	for _, m := range p.Methods {
		switch {
		case !httpguts.ValidHeaderFieldName(m): // both are tokens
			return fmt.Errorf("purge: %q is no method", m)
		case slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "QUERY"}, strings.ToUpper(m)):
			return fmt.Errorf("purge: %s means something else already: take a method of its own, such as PURGE", m)
		}
	}
	if len(p.Tokens) == 0 && len(p.From) == 0 {
		return errors.New("purge: everybody could: say who may, by token or from")
	}
	for _, s := range p.From {
		if _, err := parseRange(s); err != nil && !hasPlaceholder(s) {
			return err
		}
	}
	return nil
}

func parseRange(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	r, err := netip.ParsePrefix(s)
	if err != nil {
		return r, fmt.Errorf("purge from %q: an address, or a range such as 10.0.0.0/8", s)
	}
	return r.Masked(), nil
}

func (p *InBandPurge) resolve(repl *caddy.Replacer) (allowed purgers, err error) {
	for _, s := range p.Tokens {
		token, err := repl.ReplaceOrErr(s, true, true)
		if err != nil {
			return allowed, fmt.Errorf("purge token: %w", err)
		}
		if token = strings.TrimSpace(token); len(token) < minPurgeToken {
			return allowed, fmt.Errorf("purge token: %d bytes are too few: at least %d, hard to guess, as caddy groupcache keygen makes them", len(token), minPurgeToken)
		}
		allowed.tokens = append(allowed.tokens, sha256.Sum256([]byte(token)))
	}
	for _, s := range p.From {
		text, err := repl.ReplaceOrErr(s, true, true)
		if err != nil {
			return allowed, fmt.Errorf("purge from: %w", err)
		}
		r, err := parseRange(text)
		if err != nil {
			return allowed, err
		}
		allowed.ranges = append(allowed.ranges, r)
	}
	return allowed, nil
}

// may reports whether a request comes from somebody who may purge.
func (p *purgers) may(r *http.Request) bool {
	if len(p.tokens) == 0 && len(p.ranges) == 0 {
		return false
	}
	return (len(p.tokens) == 0 || p.knows(r)) && (len(p.ranges) == 0 || p.covers(r))
}

func (p *purgers) knows(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, found := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
	for _, want := range p.tokens {
		found |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return found == 1 && strings.EqualFold(scheme, "Bearer")
}

func (p *purgers) covers(r *http.Request) bool {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if text == "" {
		text, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(p.ranges, func(r netip.Prefix) bool { return r.Contains(addr) })
}

// servePurge answers a request that purges.
func (h *Handler) servePurge(w http.ResponseWriter, r *http.Request) error {
	if !h.purgers.may(r) {
		return caddyhttp.Error(http.StatusForbidden, errors.New("who asked for a purge may not"))
	}
	selectors, err := h.selectorsOf(r)
	if err != nil {
		return caddyhttp.Error(http.StatusBadRequest, err)
	}
	req := PurgeRequest{Group: h.Group, Soft: r.Header.Get("Fastly-Soft-Purge") == "1"}
	return purgeAll(h.node, inPurges(req, selectors), h.logger).write(w)
}

// selectorsOf returns what a request purges: the tags that it names, or its URL.
func (h *Handler) selectorsOf(r *http.Request) ([]store.Selector, error) {
	var selectors []store.Selector
	named := false
	for _, name := range h.Tags {
		named = named || len(r.Header[name]) > 0
	}
	if named {
		tags, few := rfc9111.Tags(r.Header, h.Tags)
		if !few || len(tags) == 0 {
			return nil, fmt.Errorf("purge by tags: there are none, more than %d, or longer ones than %d bytes", rfc9111.MaxTags, rfc9111.MaxTagLength)
		}
		for _, tag := range tags {
			selectors = append(selectors, store.Selector{Kind: store.Tag, Value: tag})
		}
		return selectors, nil
	}
	uri := requestURI(r)
	if len(uri) > maxTarget || len(r.Host) > maxHost || r.Host == "" {
		return nil, errors.New("purge of a URL: it has no host, or is too long")
	}
	selectors = append(selectors, store.Selector{Kind: store.URL, Value: urlOf(r)})
	for _, k := range h.keysOf(r, uri) {
		selectors = append(selectors, selectorOf(k))
	}
	return selectors, nil
}
