package purging

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Purges have no standard: each plugin speaks to the cache it was made for. What
// can be read is carried out, and more may be purged than was asked for; what
// cannot be read is refused. docs/purge.md has the table.

// maxPurgeTags is the largest number of tags of one request.
const maxPurgeTags = 4096

// CheckMethod returns an error if a method can't be one that only purges.
func CheckMethod(method string) error {
	switch capitals := strings.ToUpper(method); {
	case !httpguts.ValidHeaderFieldName(method): // both are tokens
		return fmt.Errorf("purge: %q is no method", method)
	case slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "QUERY"}, capitals):
		return fmt.Errorf("purge: %s means something else already: take a method of its own, such as PURGE", method)
	case method != capitals:
		return fmt.Errorf("purge: %q has small letters, which are others in a method: write %s as purgers send it, or leave the option out if nobody may purge", method, capitals)
	}
	return nil
}

// A tagField is a request field that names tags to purge.
type tagField struct {
	name       string
	response   string // the response field whose tags it names
	expression bool   // the value may be a regular expression
	soft       bool
}

var tagFields = []tagField{
	{name: "Surrogate-Key", response: "Surrogate-Key"},
	{name: "Cache-Tag", response: "Cache-Tag"},
	{name: "Cache-Tags", response: "Cache-Tags", expression: true},             // Drupal
	{name: "Apiplatform-Ban-Regex", response: "Cache-Tags", expression: true},  // API Platform
	{name: "X-Cache-Tags", response: "X-Cache-Tags", expression: true},         // FOSHttpCache
	{name: "Purge-Cache-Tags", response: "Purge-Cache-Tags", expression: true}, // Drupal
	{name: "X-Drupal-Cache-Tags", response: "X-Drupal-Cache-Tags", expression: true},
	{name: "X-Magento-Tags-Pattern", response: "X-Magento-Tags", expression: true},
	{name: "Xkey", response: "Xkey"}, // Varnish's vmod xkey
	{name: "Xkey-Purge", response: "Xkey"},
	{name: "Xkey-Softpurge", response: "Xkey", soft: true},
}

// Other fields of purges that are understood.
const (
	purgeMethodField = "X-Purge-Method"    // Proxy Cache Purge, WP Rocket: default, exact or regex
	softPurgeField   = "Fastly-Soft-Purge" // Fastly
	clearCacheField  = "Clear-Cache"       // FOSHttpCache for Symfony
	banURLField      = "X-Url"             // FOSHttpCache for Varnish, and the two below
	banHostField     = "X-Host"
	banTypeField     = "X-Content-Type"
)

// A Purge is what a request purges.
type Purge struct {
	Selectors []store.Selector
	Soft      bool
	Own       bool // the request's own target is named, wholly
}

// A reader reads one request.
type reader struct {
	*http.Request
	target string   // as the client sent it
	tags   []string // the response fields that have tags
}

// ReadInband returns what a request purges that has a method for it and no body. target
// is its target as the client sent it, and tags are the names of the response fields that
// have cache tags, in canonical form. The error is an Error.
func ReadInband(req *http.Request, target string, tags []string) (p Purge, err error) {
	r := reader{req, target, tags}
	if name := r.unknownField(); name != "" {
		return p, Unsupported("the field %s is not understood: docs/purge.md has the fields that are", name)
	}
	for _, name := range []string{purgeMethodField, softPurgeField, clearCacheField, banURLField, banHostField, banTypeField} {
		if len(r.Header[name]) > 1 && (name != banHostField || r.byExpressions()) {
			return p, Malformed("the field %s stands there %d times: send a request for each", name, len(r.Header[name]))
		}
	}
	p.Soft = r.Header.Get(softPurgeField) == "1"
	named, some, err := r.tagsNamed(&p.Soft)
	switch {
	case err != nil:
		return p, err
	case slices.Contains(named, anyText), strings.EqualFold(r.Header.Get(clearCacheField), "true"):
		p.Selectors = []store.Selector{{Kind: store.All}}
		return p, nil
	case some:
		for _, tag := range named {
			p.Selectors = append(p.Selectors, store.Selector{Kind: store.Tag, Value: tag})
		}
		return p, nil
	case r.Method == "PURGEKEYS" || r.Method == "PURGETAGS":
		return p, Malformed("%s needs a field of cache tags, such as Surrogate-Key", r.Method)
	}
	err = r.placesNamed(&p)
	return p, err
}

// unknownField returns the name of a field that says what to purge and is not
// understood. Fields with the secret of a purger may be there.
func (r reader) unknownField() string {
	known := []string{purgeMethodField, softPurgeField, clearCacheField, banURLField, banHostField, banTypeField}
	for _, f := range tagFields {
		known = append(known, f.name)
	}
	for name := range r.Header {
		if slices.Contains(known, name) || slices.Contains(r.tags, name) {
			continue
		}
		words := strings.Split(strings.ToLower(name), "-")
		has := func(some ...string) bool {
			return slices.ContainsFunc(words, func(word string) bool { return slices.Contains(some, word) })
		}
		if has("tag", "tags", "purge", "ban", "xkey", "surrogate", "invalidate", "regex") && !has("key", "token", "secret", "auth", "capability", "signature") {
			return name
		}
	}
	return ""
}

// tagsNamed returns the tags that fields name; anyText is all tags.
func (r reader) tagsNamed(soft *bool) (tags []string, named bool, err error) {
	fields := slices.Clone(tagFields)
	for _, name := range r.tags {
		if !slices.ContainsFunc(fields, func(f tagField) bool { return f.name == name }) {
			fields = append(fields, tagField{name: name, response: name})
		}
	}
	for _, f := range fields {
		for _, value := range r.Header[f.name] {
			some, err := r.readTags(f, value)
			if err != nil {
				return nil, true, err
			}
			named, *soft = true, *soft || f.soft
			tags = append(tags, some...)
		}
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	switch {
	case !named:
		return nil, false, nil
	case len(tags) == 0, len(tags) > maxPurgeTags:
		return nil, true, Malformed("purge by tags: %d tags; at least one, and at most %d in a request", len(tags), maxPurgeTags)
	case slices.ContainsFunc(tags, func(tag string) bool { return len(tag) > rfc9111.MaxTagLength }):
		return nil, true, Malformed("purge by tags: a tag is longer than %d bytes", rfc9111.MaxTagLength)
	}
	return tags, true, nil
}

// readTags returns the tags of one field line.
func (r reader) readTags(f tagField, value string) (tags []string, err error) {
	if f.expression && strings.TrimSpace(value) != "" && everything(value) {
		return []string{anyText}, nil
	}
	if !slices.Contains(r.tags, f.response) {
		return nil, Unsupported("no response has tags in %s: add `tags %s` to the directive groupcache", f.response, f.response)
	}
	values := []string{value}
	if f.expression {
		if values, err = tagsOf(value); err != nil {
			return nil, err
		}
	}
	for _, value := range values {
		tags = append(tags, rfc9111.SplitTags(value)...)
	}
	for _, tag := range tags {
		if strings.Contains(tag, "*") {
			return nil, Unsupported("tag %.200q: tags are purged exactly, name each of them", tag)
		}
	}
	return tags, nil
}

// placesNamed adds what a request without tags purges.
func (r reader) placesNamed(p *Purge) error {
	target := r.target
	if len(target) > inbound.MaxTarget || len(r.Host) > inbound.MaxHost {
		return Malformed("purge of a URL: it is too long")
	}
	if _, err := store.ParseHost(r.Host); err != nil {
		return Malformed("purge of a URL of %.200q: %v", r.Host, err)
	}
	if r.byExpressions() {
		return r.banned(p)
	}
	var sets []urlSet
	switch how := strings.ToLower(r.Header.Get(purgeMethodField)); how {
	case "regex":
		if strings.Contains(target, "?") {
			return Unsupported("%.200q has a question mark in a regular expression: purge by a beginning such as /shop/.*, or without %s", target, purgeMethodField)
		}
		var err error
		if sets, err = urlSets("^(?:" + target + ")"); err != nil {
			return err
		}
	case "", "default", "exact":
		set, err := targetSet(target)
		if err != nil {
			return err
		}
		switch {
		case r.bans(): // it bans what matches, elsewhere, and not one URL
			set.whole = false
		case set.target == "/purgeall": // Nginx Helper
			set = urlSet{}
		}
		sets = []urlSet{set}
	default:
		return Malformed("%s %.100q: default, exact or regex", purgeMethodField, how)
	}
	return r.name(p, []string{r.Host}, sets)
}

// bans reports whether the method is one of those that take a pattern elsewhere.
func (r reader) bans() bool { return strings.HasSuffix(r.Method, "BAN") }

// byExpressions reports whether fields of expressions name what to purge. Proxies may add
// X-Host to any request.
func (r reader) byExpressions() bool {
	return len(r.Header[banURLField]) > 0 || r.bans() && (len(r.Header[banHostField]) > 0 || len(r.Header[banTypeField]) > 0)
}

// banned adds what FOSHttpCache's fields of expressions name.
func (r reader) banned(p *Purge) error {
	if kind := r.Header.Get(banTypeField); !everything(kind) {
		return Unsupported("%s %.100q: responses cannot be purged by their type: leave it out, or purge by tags", banTypeField, kind)
	}
	sets, err := urlSets(r.Header.Get(banURLField))
	if err != nil {
		return err
	}
	hosts := []string{r.Host}
	if host := r.Header[banHostField]; len(host) > 0 && !everything(host[0]) {
		if hosts, err = hostsOf(host[0]); err != nil {
			return err
		}
	} else if len(host) > 0 {
		if slices.ContainsFunc(sets, urlSet.wholeHost) {
			p.Selectors = []store.Selector{{Kind: store.All}}
			return nil
		}
		return Unsupported("URLs of all hosts cannot be purged by a beginning: name the hosts in %s, as ^www\\.example\\.com$", banHostField)
	}
	return r.name(p, hosts, sets)
}

// hostsOf returns the hosts that an expression names.
func hostsOf(expression string) (hosts []string, err error) {
	texts, err := expand(expression)
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		host, err := store.ParseHost(strings.Trim(text, textBegin+textEnd))
		if err != nil || len(host) > inbound.MaxHost {
			return nil, Unsupported("hosts cannot be purged by the regular expression %.200q: name them, as ^(www\\.example\\.com|example\\.com)$", expression)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// maxNamedBytes bounds the URLs that two expressions name together, for hosts and for targets.
const maxNamedBytes = 2 * maxExpansionBytes

// name adds the selectors for URLs of hosts.
func (r reader) name(p *Purge, hosts []string, sets []urlSet) error {
	size := 0
	for _, host := range hosts {
		size += len(sets) * len(host)
	}
	for _, set := range sets {
		size += len(hosts) * len(set.target)
	}
	if len(hosts)*len(sets) > maxExpansions || size > maxNamedBytes {
		return Malformed("%d targets of %d hosts are too many: send several requests", len(sets), len(hosts))
	}
	seen := make(map[store.Selector]bool)
	add := func(kind store.Kind, value string) {
		if s := (store.Selector{Kind: kind, Value: value}); !seen[s] {
			seen[s] = true
			p.Selectors = append(p.Selectors, s)
		}
	}
	for _, set := range sets {
		if len(set.target) > inbound.MaxTarget {
			return Malformed("purge of a URL: it is too long")
		}
		if set.wholeHost() {
			for _, host := range hosts {
				add(store.Host, strings.ToLower(withoutPort(host)))
			}
			continue
		}
		kind := store.Prefix
		if set.whole {
			kind = store.URL
			p.Own = p.Own || set.target == r.target
		}
		for _, host := range hosts {
			for _, u := range r.spellings(host, set.target) {
				add(kind, u)
			}
		}
	}
	return nil
}

// spellings returns the URLs that a purge of a host and a target can be about. A
// plugin speaks plain HTTP to the cache and often leaves out the port, and may spell the
// target in another way, whatever clients of the site do.
func (r reader) spellings(host, target string) (urls []string) {
	name := withoutPort(host)
	hosts := []string{host, name}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && host == name {
		if _, port, err := net.SplitHostPort(addr.String()); err == nil {
			hosts = append(hosts, name+":"+port)
		}
	}
	for _, scheme := range []string{"http", "https"} {
		for _, host := range hosts {
			for _, target := range rfc9111.Spellings(target) {
				if u := store.URLOf(scheme, host, target); len(target) <= inbound.MaxTarget && !slices.Contains(urls, u) {
					urls = append(urls, u)
				}
			}
		}
	}
	return urls
}

// withoutPort returns a host without its port, if it has one.
func withoutPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		return host[:i]
	}
	return host
}
