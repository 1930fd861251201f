// Package rules reads the options ttl and response of the config: what an operator says
// about responses of a status, or that one of Caddy's response matchers picks. It makes of
// them what internal/storing goes by, which knows no Caddy.
package rules

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/storing"
)

// A Rule is what the cache makes of some responses. It changes what the cache sees, and so
// what it stores and serves; the client whose request was fetched gets the response as it is.
type Rule struct {
	// What explanations call it. Default: its number among the rules, from 1.
	Name string `json:"name,omitempty"`

	// Which responses it is about. Default: all that no rule before it is about.
	Match *caddyhttp.ResponseMatcher `json:"match,omitempty"`

	// How long they are fresh, if they don't say; of any status.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// The ttl goes before what they say, but for no-store and private.
	Force bool `json:"force,omitempty"`

	// Fields that they are stored without, such as Set-Cookie.
	StoreWithout []string `json:"store_without,omitempty"`

	// Cache tags that they have beside their own.
	Tags []string `json:"tags,omitempty"`

	// They are not stored.
	NoStore bool `json:"no_store,omitempty"`
}

// Unmarshal reads a block, whose name the dispenser stands at. Its matcher is filled in by
// Resolve, since it may be defined below.
//
//	response [@<matcher>] {
//		ttl           <duration> [force]
//		store_without <field>...
//		tags          +<tag>...
//		no_store
//	}
func Unmarshal(d *caddyfile.Dispenser) (*Rule, error) {
	r := new(Rule)
	if d.NextArg() {
		if r.Name = d.Val(); !strings.HasPrefix(r.Name, "@") {
			return nil, d.Errf("response %q: a response matcher that the block of groupcache defines, as in @images header Content-Type image/*", r.Name)
		}
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := r.unmarshalOption(d, d.Val(), d.RemainingArgs()); err != nil {
			return nil, err
		}
	}
	if err := r.check(); err != nil {
		return nil, d.WrapErr(err)
	}
	return r, nil
}

func (r *Rule) unmarshalOption(d *caddyfile.Dispenser, option string, args []string) error {
	switch {
	case option == "ttl" && (len(args) == 1 || len(args) == 2 && args[1] == "force"):
		ttl, err := caddy.ParseDuration(args[0])
		if err != nil || ttl <= 0 {
			return d.Errf("ttl: %q is not a duration such as 10m", args[0])
		}
		r.TTL, r.Force = caddy.Duration(ttl), len(args) == 2
	case option == "ttl":
		return d.Errf("ttl takes a duration and perhaps force, as in ttl 10m force")
	case option == "store_without" && len(args) > 0:
		r.StoreWithout = append(r.StoreWithout, args...)
	case option == "store_without":
		return d.Errf("store_without takes response fields, as in store_without Set-Cookie")
	case option == "tags" && len(args) > 0:
		for _, arg := range args {
			tag, adds := strings.CutPrefix(arg, "+")
			if !adds {
				return d.Errf("tags %q: a tag that is added to those of the response begins with +, as in tags +page", arg)
			}
			r.Tags = append(r.Tags, tag)
		}
	case option == "tags":
		return d.Errf("tags takes tags to add, as in tags +page")
	case option == "no_store" && len(args) == 0:
		r.NoStore = true
	default:
		return d.Errf("unknown option %q of response: one of ttl <duration> [force], store_without <field>..., tags +<tag>..., no_store", option)
	}
	return nil
}

// Resolve fills in the matchers that rules name.
func Resolve(all []*Rule, matchers map[string]caddyhttp.ResponseMatcher) error {
	for _, r := range all {
		if r.Name == "" || r.Match != nil {
			continue
		}
		m, defined := matchers[r.Name]
		if !defined {
			return fmt.Errorf("response %s: no such response matcher: define it in the block of groupcache, as in %s status 2xx", r.Name, r.Name)
		}
		r.Match = &m
	}
	return nil
}

// Check checks all rules of a handler, to which some response fields are targeted.
func Check(all []*Rule, targeted []string) error {
	var names []string
	for i, r := range all {
		if r == nil {
			return fmt.Errorf("response %d is null: leave it out", i+1)
		}
		if err := r.check(); err != nil {
			return err
		}
		for _, name := range r.StoreWithout {
			if name = http.CanonicalHeaderKey(name); slices.Contains(targeted, name) {
				return fmt.Errorf("store_without %s: what it says is not forgotten, but ttl <duration> force goes before it; targeted names the fields that speak to this cache", name)
			}
		}
		if r.Match == nil && i < len(all)-1 {
			return errors.New("a response block without a matcher is about all responses, so those after it have no effect: put it last")
		}
		if slices.Contains(names, r.name(i)) {
			return fmt.Errorf("response %s: two blocks have this name: with one matcher the second has no effect, and an explanation could mean either: join them, or rename one", r.name(i))
		}
		names = append(names, r.name(i))
		if len(r.name(i)) > rfc9111.MaxTagLength/2 {
			return fmt.Errorf("response %.50s: the name is too long", r.Name)
		}
	}
	return nil
}

func (r *Rule) check() error {
	switch {
	case r.TTL < 0:
		return fmt.Errorf("response: ttl %s is negative", time.Duration(r.TTL))
	case r.Force && r.TTL == 0:
		return errors.New("response: force is about the ttl, and there is none")
	case r.NoStore && (r.TTL > 0 || len(r.StoreWithout) > 0 || len(r.Tags) > 0):
		return errors.New("response: no_store leaves nothing to do for ttl, store_without and tags")
	case !r.NoStore && r.TTL == 0 && len(r.StoreWithout) == 0 && len(r.Tags) == 0:
		return errors.New("response: the block says nothing: one of ttl <duration> [force], store_without <field>..., tags +<tag>..., no_store")
	}
	for _, name := range r.StoreWithout {
		if err := checkField(name); err != nil {
			return err
		}
	}
	for _, tag := range r.Tags {
		if got := rfc9111.SplitTags(tag); len(got) != 1 || got[0] != tag || len(tag) > rfc9111.MaxTagLength {
			return fmt.Errorf("response: tag %.50q: 1 to %d bytes, without spaces and commas", tag, rfc9111.MaxTagLength)
		}
	}
	return nil
}

// checkField refuses fields without which a stored response would be another one, or would
// answer requests that it is not for.
func checkField(name string) error {
	switch canonical := http.CanonicalHeaderKey(name); {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("store_without %.50q: no name of a response field", name)
	case canonical == "Vary":
		return errors.New("store_without Vary: clients would get responses that were made for others; cookies, query or a request_header in front of the cache take away what responses need not vary by")
	case slices.Contains([]string{"Content-Encoding", "Content-Language", "Content-Length", "Content-Range", "Content-Type", "Transfer-Encoding", "Trailer", "Date", "Age"}, canonical):
		return fmt.Errorf("store_without %s: the body can't be understood without it", canonical)
	case canonical == "Cache-Control" || canonical == "Expires" || canonical == "Pragma":
		return fmt.Errorf("store_without %s: what it says is not forgotten, but ttl <duration> force goes before it", canonical)
	}
	return nil
}

func (r *Rule) name(i int) string {
	if r.Name == "" {
		return strconv.Itoa(i + 1)
	}
	return r.Name
}

// Of returns the rules as storing goes by them.
func Of(all []*Rule) []storing.Rule {
	var rules []storing.Rule
	for i, r := range all {
		one := storing.Rule{
			Name: r.name(i), TTL: time.Duration(r.TTL), Force: r.Force, Tags: r.Tags, NoStore: r.NoStore,
			Matches: func(int, http.Header) bool { return true },
		}
		if r.Match != nil {
			one.Matches = r.Match.Match
		}
		for _, name := range r.StoreWithout {
			one.Without = append(one.Without, http.CanonicalHeaderKey(name))
		}
		slices.Sort(one.Without)
		rules = append(rules, one)
	}
	return rules
}

// Terms returns what of the rules decides whether a response is stored at all, for the keys
// of a handler: another handler of its group may store what this one would not. A rule that
// decides nothing keeps those after it from the responses that it is about.
func Terms(all []*Rule) string {
	var terms, decided []byte
	for _, r := range all {
		terms = append(terms, caddyconfig.JSON(Rule{Match: r.Match, Force: r.Force, NoStore: r.NoStore, StoreWithout: r.StoreWithout}, nil)...)
		if r.Force || r.NoStore || len(r.StoreWithout) > 0 {
			decided = terms
		}
	}
	return string(decided)
}
