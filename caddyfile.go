package caddygroupcache

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/options"
	"github.com/caddy-groupcache/caddy-groupcache/rules"
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

func parseGlobal(d *caddyfile.Dispenser, before any) (any, error) {
	a := new(App)
	if block, again := before.(httpcaddyfile.App); again {
		_ = json.Unmarshal(block.Value, a) // as it is made below
	}
	err := a.UnmarshalCaddyfile(d)
	return httpcaddyfile.App{Name: "groupcache", Value: caddyconfig.JSON(a, nil)}, err
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
	return h.NewRoute(matchers, handler), checkAdmin(h)
}

// checkAdmin refuses a port of the cluster at which the admin endpoint listens. Only an adapter
// sees both options: with a config in JSON the start fails, and says so.
func checkAdmin(h httpcaddyfile.Helper) error {
	listen := caddy.DefaultAdminListen
	if admin, ok := h.Option("admin").(*caddy.AdminConfig); ok {
		listen = admin.Listen // "" for off
	}
	option, _ := h.Option("groupcache").(httpcaddyfile.App)
	a := new(App)
	at, err := caddy.ParseNetworkAddress(listen)
	if listen == "" || err != nil || at.IsUnixNetwork() || json.Unmarshal(option.Value, a) != nil {
		return nil
	}
	c, err := a.resolve(caddy.NewReplacer())
	if err != nil {
		return nil // Provision says what is wrong
	}
	return c.Takes("the admin endpoint ("+listen+")", at.Host, at.StartPort)
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
//		cluster    <name>
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
		return options.Size(d, &a.CacheSize)
	case "gossip":
		return options.Address(d, option, &a.Gossip, gossip.GossipPort)
	case "peers":
		return options.Address(d, option, &a.Peers, gossip.PeersPort)
	case "advertise":
		return a.unmarshalAdvertise(d)
	case "join":
		seeds, err := options.Some(d, "an address or DNS name of another node")
		if err != nil {
			return err
		}
		for _, seed := range seeds {
			if err := gossip.CheckSeed(seed); err != nil && !options.HasPlaceholder(seed) {
				return d.WrapErr(err)
			}
		}
		a.Join = append(a.Join, seeds...)
	case "name":
		return options.String(d, &a.Name)
	case "cluster":
		if err := options.String(d, &a.Cluster); err != nil {
			return err
		}
		if err := gossip.CheckClusterName(a.Cluster); err != nil && !options.HasPlaceholder(a.Cluster) {
			return d.WrapErr(err)
		}
	case "secret":
		secrets, err := options.Some(d, "a secret; make one with caddy groupcache keygen")
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
		return options.Flag(d, &a.ShowKeys)
	case "insecure":
		return options.Flag(d, &a.Insecure)
	default:
		return d.Errf("unknown option %q of groupcache: one of cache_size, gossip, peers, advertise, join, name, cluster, secret, insecure, show_keys, persist", option)
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
		if _, err := gossip.ParseAddress("advertise", arg, []string{gossip.GossipPort, gossip.PeersPort}[i]); err != nil && !options.HasPlaceholder(arg) {
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
//		stale              while_revalidate <duration> | if_error <duration> | after <duration>
//		max_body_size      <size>
//		tags               <field>...
//		expose_tags
//		targeted           <field>...
//		purge              [<method>...] {
//			token <secret>...
//			from  <address or range>...
//		}
//		@<name>            [status <code>...] [header <field> [<value>]]
//		response           [@<name>] {
//			ttl           <duration> [force]
//			store_without <field>...
//			tags          +<tag>...
//			no_store
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
	matchers := make(map[string]caddyhttp.ResponseMatcher)
	for d.NextBlock(0) {
		if strings.HasPrefix(d.Val(), "@") {
			if err := caddyhttp.ParseNamedResponseMatcher(d.NewFromNextSegment(), matchers); err != nil {
				return err
			}
		} else if err := unmarshalHandlerOption(d, h, d.Val()); err != nil {
			return err
		}
	}
	if err := rules.Resolve(h.Response, matchers); err != nil {
		return d.WrapErr(err)
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
		return options.String(d, &h.Group)
	case "key":
		return options.String(d, &h.Key)
	case "query":
		return unmarshalQuery(d, h)
	case "cookies":
		return unmarshalCookies(d, h)
	case "ttl":
		return unmarshalTTL(d, h)
	case "stale":
		return unmarshalStale(d, h)
	case "max_body_size":
		return options.Size(d, &h.MaxBodySize)
	case "tags":
		fields, err := options.Some(d, "a response field")
		h.Tags = append(h.Tags, fields...)
		return err
	case "expose_tags":
		return options.Flag(d, &h.ExposeTags)
	case "targeted":
		fields, err := options.Some(d, "response fields that speak to this cache, as CDN-Cache-Control does, the most wanted first")
		h.Targeted = append(h.Targeted, fields...)
		return err
	case "purge":
		return unmarshalPurge(d, h)
	case "response":
		rule, err := rules.Unmarshal(d)
		h.Response = append(h.Response, rule)
		return err
	case "request_directives":
		return options.String(d, &h.RequestDirectives)
	case "set_cookie":
		return options.String(d, &h.SetCookie)
	case "authorization":
		return options.String(d, &h.Authorization)
	case "fill_timeout":
		return options.Duration(d, &h.FillTimeout)
	case "peer_timeout":
		return options.Duration(d, &h.PeerTimeout)
	case "query_method":
		return options.String(d, &h.QueryMethod)
	case "cache_status":
		return options.String(d, &h.CacheStatus)
	case "express":
		return options.Flag(d, &h.Express)
	}
	return d.Errf("unknown option %q of groupcache: one of group, key, query, cookies, ttl, stale, max_body_size, tags, expose_tags, targeted, purge, response, request_directives, set_cookie, authorization, fill_timeout, peer_timeout, query_method, cache_status, express", option)
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
		return d.Errf("stale takes: while_revalidate <duration>, if_error <duration> or after <duration>")
	}
	switch d.Val() {
	case "while_revalidate":
		return options.Duration(d, &h.Stale.WhileRevalidate)
	case "if_error":
		return options.Duration(d, &h.Stale.IfError)
	case "after":
		return options.Duration(d, &h.Stale.After)
	}
	return d.Errf("stale %q: while_revalidate, if_error or after", d.Val())
}

// unmarshalPurgers reads an option that names the senders of purges.
func unmarshalPurgers(d *caddyfile.Dispenser, option string, tokens, from *[]string) error {
	what, dst := "a secret that whoever purges sends as Authorization: Bearer", tokens
	if option == "from" {
		what, dst = "addresses or ranges such as 10.0.0.0/8", from
	}
	args, err := options.Some(d, what)
	*dst = append(*dst, args...)
	return err
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
