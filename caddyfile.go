package caddygroupcache

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/dustin/go-humanize"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("groupcache", parseGlobal)
	httpcaddyfile.RegisterDirective("groupcache", parseDirective)
	httpcaddyfile.RegisterHandlerDirective("groupcache_purge", parsePurgeHandler)
	// After authentication, and, since it is registered first, before groupcache.
	httpcaddyfile.RegisterDirectiveOrder("groupcache_purge", httpcaddyfile.Before, "encode")
	// After authentication, so that a hit is never served to somebody who may
	// not see it; before encode, so that a compressed response is stored
	// compressed and not compressed again for every hit.
	httpcaddyfile.RegisterDirectiveOrder("groupcache", httpcaddyfile.Before, "encode")
}

func parseGlobal(d *caddyfile.Dispenser, _ any) (any, error) {
	a := new(App)
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "groupcache", Value: caddyconfig.JSON(a, nil)}, nil
}

// parseDirective parses the directive with its matcher.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	matchers, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	if _, byMethod := matchers["method"]; byMethod {
		h.Next() // for the line of the error
		return nil, h.Err("a method matcher keeps PUT, POST and DELETE from the cache, so what they change would stay stored: remove it, since only GET, HEAD and QUERY are cached anyway")
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matchers, handler), nil
}

// UnmarshalCaddyfile sets up the app from the global option. Syntax:
//
//	groupcache {
//		cache_size <size>
//		gossip     <address>
//		peers      <address>
//		advertise  <gossip address> [<peers address>]
//		join       <address or name>...
//		name       <name>
//		secret     <secret>...
//		insecure
//		show_keys
//		persist    [<directory>]
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if err := a.unmarshalOption(d, d.Val()); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	switch option {
	case "cache_size":
		return sizeArg(d, &a.CacheSize)
	case "gossip":
		return addressArg(d, option, &a.Gossip, gossip.GossipPort)
	case "peers":
		return addressArg(d, option, &a.Peers, gossip.PeersPort)
	case "advertise":
		return a.unmarshalAdvertise(d)
	case "join":
		seeds, err := someArgs(d, "an address or DNS name of another node")
		if err != nil {
			return err
		}
		for _, seed := range seeds {
			if err := gossip.CheckSeed(seed); err != nil && !hasPlaceholder(seed) {
				return d.WrapErr(err)
			}
		}
		a.Join = append(a.Join, seeds...)
	case "name":
		return stringArg(d, &a.Name)
	case "secret":
		secrets, err := someArgs(d, "a secret; make one with caddy groupcache keygen")
		a.Secret = append(a.Secret, secrets...)
		return err
	case "persist":
		a.Persist = new(Persist)
		if d.NextArg() {
			a.Persist.Path = d.Val()
		}
		if d.NextArg() {
			return d.ArgErr()
		}
	case "show_keys":
		return flagArg(d, &a.ShowKeys)
	case "insecure":
		return flagArg(d, &a.Insecure)
	default:
		return d.Errf("unknown option %q of groupcache: one of cache_size, gossip, peers, advertise, join, name, secret, insecure, show_keys, persist", option)
	}
	return nil
}

func (a *App) unmarshalAdvertise(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.Errf("advertise takes the gossip address and perhaps the peers address that other nodes dial")
	}
	a.Advertise = &Advertise{Gossip: args[0]}
	if len(args) == 2 {
		a.Advertise.Peers = args[1]
	}
	for i, arg := range args {
		if _, err := gossip.ParseAddress("advertise", arg, []string{gossip.GossipPort, gossip.PeersPort}[i]); err != nil && !hasPlaceholder(arg) {
			return d.WrapErr(err)
		}
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from the directive. Syntax:
//
//	groupcache [<matcher>] {
//		group              <name>
//		key                <template>
//		query              ignore <name or prefix*>... | only <name or prefix*>... | sort
//		cookies            ignore <name or prefix*>... | only <name or prefix*>...
//		ttl                <duration> [<status>...]
//		stale              while_revalidate <duration> | if_error <duration>
//		max_body_size      <size>
//		tags               <field>...
//		expose_tags
//		targeted           <field>...
//		purge              [<method>...] {
//			token <secret>...
//			from  <address or range>...
//		}
//		request_directives honor|ignore
//		set_cookie         refuse|store
//		authorization      honor|ignore
//		fill_timeout       <duration>
//		peer_timeout       <duration>
//		query_method       on|off
//		express
//		cache_status       <name>|off
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if err := unmarshalHandlerOption(d, h, d.Val()); err != nil {
			return err
		}
	}
	h2 := *h
	h2.setDefaults()
	if err := h2.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func unmarshalHandlerOption(d *caddyfile.Dispenser, h *Handler, option string) error {
	switch option {
	case "group":
		return stringArg(d, &h.Group)
	case "key":
		return stringArg(d, &h.Key)
	case "query":
		return unmarshalQuery(d, h)
	case "cookies":
		return unmarshalCookies(d, h)
	case "ttl":
		return unmarshalTTL(d, h)
	case "stale":
		return unmarshalStale(d, h)
	case "max_body_size":
		return sizeArg(d, &h.MaxBodySize)
	case "tags":
		fields, err := someArgs(d, "a response field")
		h.Tags = append(h.Tags, fields...)
		return err
	case "expose_tags":
		return flagArg(d, &h.ExposeTags)
	case "targeted":
		fields, err := someArgs(d, "response fields that speak to this cache, as CDN-Cache-Control does, the most wanted first")
		h.Targeted = append(h.Targeted, fields...)
		return err
	case "purge":
		return unmarshalPurge(d, h)
	case "request_directives":
		return stringArg(d, &h.RequestDirectives)
	case "set_cookie":
		return stringArg(d, &h.SetCookie)
	case "authorization":
		return stringArg(d, &h.Authorization)
	case "fill_timeout":
		return durationArg(d, &h.FillTimeout)
	case "peer_timeout":
		return durationArg(d, &h.PeerTimeout)
	case "query_method":
		return stringArg(d, &h.QueryMethod)
	case "cache_status":
		return stringArg(d, &h.CacheStatus)
	case "express":
		return flagArg(d, &h.Express)
	}
	return d.Errf("unknown option %q of groupcache: one of group, key, query, cookies, ttl, stale, max_body_size, tags, expose_tags, targeted, purge, request_directives, set_cookie, authorization, fill_timeout, peer_timeout, query_method, cache_status, express", option)
}

func unmarshalQuery(d *caddyfile.Dispenser, h *Handler) error {
	args := d.RemainingArgs()
	if h.Query == nil {
		h.Query = new(Query)
	}
	switch {
	case len(args) > 1 && args[0] == "ignore":
		h.Query.Ignore = append(h.Query.Ignore, args[1:]...)
	case len(args) > 1 && args[0] == "only":
		h.Query.Only = append(h.Query.Only, args[1:]...)
	case len(args) == 1 && args[0] == "sort":
		h.Query.Sort = true
	default:
		return d.Errf("query takes: ignore <name or prefix*>..., only <name or prefix*>..., or sort")
	}
	return nil
}

func unmarshalCookies(d *caddyfile.Dispenser, h *Handler) error {
	args := d.RemainingArgs()
	if h.Cookies == nil {
		h.Cookies = new(Cookies)
	}
	switch {
	case len(args) > 1 && args[0] == "ignore":
		h.Cookies.Ignore = append(h.Cookies.Ignore, args[1:]...)
	case len(args) > 1 && args[0] == "only":
		h.Cookies.Only = append(h.Cookies.Only, args[1:]...)
	default:
		return d.Errf("cookies takes: ignore <name or prefix*>..., or only <name or prefix*>...")
	}
	return nil
}

func unmarshalPurge(d *caddyfile.Dispenser, h *Handler) error {
	if h.Purge == nil {
		h.Purge = new(InBandPurge)
	}
	h.Purge.Methods = append(h.Purge.Methods, d.RemainingArgs()...)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "token", "from":
			if err := unmarshalPurgers(d, d.Val(), &h.Purge.Tokens, &h.Purge.From); err != nil {
				return err
			}
		default:
			return d.Errf("unknown option %q of purge: one of token, from", d.Val())
		}
	}
	return nil
}

func unmarshalTTL(d *caddyfile.Dispenser, h *Handler) error {
	var ttl TTL
	if !d.NextArg() {
		return d.Errf("ttl takes a duration and perhaps status codes, as in ttl 10m 200 301")
	}
	dur, err := caddy.ParseDuration(d.Val())
	if err != nil {
		return d.Errf("ttl %q is not a duration such as 10m", d.Val())
	}
	ttl.Duration = caddy.Duration(dur)
	for d.NextArg() {
		status, err := strconv.Atoi(d.Val())
		if err != nil {
			return d.Errf("ttl: %q is not a status code", d.Val())
		}
		ttl.Status = append(ttl.Status, status)
	}
	h.TTL = append(h.TTL, ttl)
	return nil
}

func unmarshalStale(d *caddyfile.Dispenser, h *Handler) error {
	if h.Stale == nil {
		h.Stale = new(Stale)
	}
	if !d.NextArg() {
		return d.Errf("stale takes: while_revalidate <duration> or if_error <duration>")
	}
	switch d.Val() {
	case "while_revalidate":
		return durationArg(d, &h.Stale.WhileRevalidate)
	case "if_error":
		return durationArg(d, &h.Stale.IfError)
	}
	return d.Errf("stale %q: while_revalidate or if_error", d.Val())
}

func hasPlaceholder(s string) bool { return strings.Contains(s, "{") }

// stringArg reads the one argument of an option.
func stringArg(d *caddyfile.Dispenser, dst *string) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	*dst = d.Val()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// flagArg sets an option that takes no argument.
func flagArg(d *caddyfile.Dispenser, dst *bool) error {
	*dst = true
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func someArgs(d *caddyfile.Dispenser, what string) ([]string, error) {
	option, args := d.Val(), d.RemainingArgs()
	if len(args) == 0 {
		return nil, d.Errf("%s takes %s", option, what)
	}
	return args, nil
}

func sizeArg(d *caddyfile.Dispenser, dst *int64) error {
	option, arg := d.Val(), ""
	if err := stringArg(d, &arg); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(arg)
	if err != nil || n == 0 || n > 1<<62 {
		return d.Errf("%s: %q is not a size such as 512MiB", option, arg)
	}
	*dst = int64(n)
	return nil
}

func durationArg(d *caddyfile.Dispenser, dst *caddy.Duration) error {
	option, arg := d.Val(), ""
	if err := stringArg(d, &arg); err != nil {
		return err
	}
	dur, err := caddy.ParseDuration(arg)
	if err != nil || dur <= 0 {
		return d.Errf("%s: %q is not a duration such as 10s", option, arg)
	}
	*dst = caddy.Duration(dur)
	return nil
}

func addressArg(d *caddyfile.Dispenser, option string, dst *string, port string) error {
	if err := stringArg(d, dst); err != nil {
		return err
	}
	if _, err := gossip.ParseAddress(option, *dst, port); err != nil && !hasPlaceholder(*dst) {
		return d.WrapErr(err)
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
