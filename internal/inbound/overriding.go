package inbound

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// overriding are the fields that make many upstreams take a request for one with
// another scheme, host, path or method, or answer with another form of the page,
// whatever its Vary says. They belong to the default key, or one client could choose
// what others get. Proxies in front of Caddy set some of them, always alike; that
// costs nothing. They are from the sources of frameworks, servers and plugins, and
// from advisories about them.
var overriding = []string{
	// Proxies and what stands behind them.
	"Forwarded", "Front-End-Https", "Cf-Visitor", "Cloudfront-Forwarded-Proto", "Fastly-Ssl", "Wl-Proxy-Ssl", "Z-Forwarded-Proto",
	"X-Appengine-Https", "X-Arr-Ssl", "X-Waws-Unencoded-Url", "X-Replaced-Path", "X-Ingress-Path",
	"X-Envoy-Original-Path", "X-Envoy-Original-Host", "X-Envoy-Original-Method",
	"X-Proxycontextpath", "X-Proxyhost", "X-Proxyport", "X-Proxyscheme",
	"$wsis", "$wssc", "$wssn", "$wssp", // WebSphere
	// Scheme, host, path and method.
	"Https", "Ssl", "Ssl-Https", "Ssl-Offloaded", "X-Https", "X-Ssl", "X-Proto", "X-Protocol", "X-Scheme", "X-Url-Scheme", "X-Client-Scheme", "X-Client-Ssl", "X-Real-Scheme",
	"X-Host", "X-Real-Host", "X-Http-Host-Override", "X-Host-Override", "X-Server-Name", "X-Backend-Host",
	"Base-Url", "X-Base-Url", "X-Path", "X-Path-Info", "X-Request-Uri", "X-Request-Url", "X-Script-Name", "X-Proxy-Url",
	"X-Http-Method", "X-Http-Method-Override", "X-Method", "X-Method-Override",
	"X-Accel-Mapping", "X-Sendfile-Type", // Rack::Sendfile, CVE-2025-61780
	// Frameworks that talk to themselves.
	"Rsc", "Next-Router-Prefetch", "Next-Router-Segment-Prefetch", "X-Matched-Path", "X-Astro-Path",
}

// overridingFamilies are the beginnings of names of such fields.
var overridingFamilies = []string{
	"X-Forwarded-", "X-Original-", "X-Rewrite-",
	"X-Invoke-", "X-Middleware-", "X-Nextjs-", "X-Now-", // Next.js, CVE-2023-46298, CVE-2025-29927, CVE-2026-44572
	"X-React-Router-", // CVE-2025-43864, CVE-2025-43865
}

// ofTheClient are members of the families that tell who the client is: another one
// for each, and nothing of the URL.
var ofTheClient = []string{
	"X-Forwarded-For", "X-Forwarded-Client-Cert", "X-Forwarded-Client-Ip", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info",
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
	"X-Original-For", "X-Original-Forwarded-For", "X-Original-Remote-Addr",
}

var isOverriding, isOfTheClient = setOf(overriding), setOf(ofTheClient)

// third are the third bytes of overriding names, by their length, and of families for all.
// Clients may send a thousand fields in each request, and this is all that most of them take.
var third = func() (all [maxName + 2]uint32) {
	for _, name := range overriding {
		all[len(name)] |= thirdOf(name)
	}
	for i := range all {
		for _, family := range overridingFamilies {
			all[i] |= thirdOf(family)
		}
	}
	return all
}()

// thirdOf returns a bit for the third byte of a name, the same for all spellings.
func thirdOf(name string) uint32 {
	c := name[2]
	if c == '_' || c == '.' {
		c = '-'
	}
	return 1 << (c & 31)
}

// A nameSet is names by their length.
type nameSet [maxName + 1][]string

// maxName is the length of the longest name.
const maxName = 32

func setOf(names []string) *nameSet {
	set := new(nameSet)
	for _, name := range names {
		set[len(name)] = append(set[len(name)], name)
	}
	return set
}

// has reports whether a name is in the set. It has three bytes at least.
func (s *nameSet) has(name string) bool {
	if len(name) >= len(s) {
		return false
	}
	for _, one := range s[len(name)] {
		if one[2] == name[2] && one == name {
			return true
		}
	}
	return false
}

// OverridesURL reports whether the field with a name, in canonical form, is one of those.
// CGI, and all that has learned from it, knows no difference between "-" and "_" in a
// name, and PHP none to a dot.
func OverridesURL(name string) bool {
	if len(name) < 3 || third[min(len(name), maxName+1)]&thirdOf(name) == 0 {
		return false
	}
	for i := range len(name) { // which takes less than to call IndexByte twice
		if c := name[i]; c == '_' || c == '.' {
			var folded [maxName]byte // of a longer name the beginning, which is a family's or none
			return overridesURL(string(foldName(folded[:], name)), len(name))
		}
	}
	return overridesURL(name, len(name))
}

// foldName writes the canonical form of the beginning of a name, with dashes alone.
func foldName(to []byte, name string) []byte {
	to = to[:min(len(to), len(name))]
	start := true
	for i := range to {
		c := name[i]
		switch {
		case c == '_' || c == '.':
			c = '-'
		case start && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case !start && 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		to[i], start = c, c == '-'
	}
	return to
}

// overridesURL is OverridesURL for the beginning of a name of a length.
func overridesURL(name string, length int) bool {
	if length == len(name) && isOverriding.has(name) {
		return true
	}
	if name[0] != 'X' || name[1] != '-' {
		return false
	}
	for _, family := range overridingFamilies {
		if family[2] == name[2] && strings.HasPrefix(name, family) {
			return length != len(name) || !isOfTheClient.has(name)
		}
	}
	return false
}

// maxOverriding is more overriding fields than a chain of proxies sets. A request with more
// has no key: to sort and hash what a client makes up would cost more than all the rest.
const maxOverriding = 32

// Overriding returns the names of the overriding fields of a request, sorted: of more than
// maxOverriding, one more than that.
func Overriding(header http.Header) (names []string) {
	for name := range header {
		if OverridesURL(name) {
			if names = append(names, name); len(names) > maxOverriding {
				break
			}
		}
	}
	slices.Sort(names)
	return names
}

// OverridingKey returns the overriding fields of a request as one string, which belongs
// into its cache key. It is "" if there are none.
func OverridingKey(header http.Header) string { return overridingKey(header, Overriding(header)) }

func overridingKey(header http.Header, names []string) string {
	var b []byte
	for _, name := range names {
		for _, value := range header[name] {
			if name == "Forwarded" {
				value = withoutAddresses(value)
			}
			b = store.AppendPart(store.AppendPart(b, name), value)
		}
	}
	return string(b)
}

// withoutAddresses leaves out of a Forwarded field who the client is and which
// proxies it came by (RFC 7239 §5): that is another one for each client, and says
// nothing of scheme or host. What is left stays in the element that it was in, since
// upstreams choose one of these. A field that ends within quotes stays as it is.
func withoutAddresses(forwarded string) string {
	var left []byte
	said := false
	for rest := forwarded; rest != ""; {
		pair, after, ok := cutPair(rest)
		if !ok {
			return forwarded
		}
		if plain := trimmed(pair); plain != "" && !isAddress(plain) {
			left, said = append(append(left, plain...), ';'), true
		}
		if after != "" && after[0] == ',' {
			left = append(left, ',')
		}
		rest = after[min(1, len(after)):]
	}
	if !said {
		return ""
	}
	return string(left)
}

// cutPair cuts a Forwarded field after its first pair, at a comma or semicolon that
// is in no quotes (RFC 7239 §4). It is false if quotes do not close.
func cutPair(s string) (pair, after string, ok bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case (c == ',' || c == ';') && !quoted:
			return s[:i], s[i:], true
		}
	}
	return s, "", !quoted
}

// isAddress reports whether a pair of a Forwarded field is about a node, and cannot
// be read as anything else.
func isAddress(pair string) bool {
	name, node, ok := strings.Cut(pair, "=")
	if !ok || !strings.EqualFold(name, "for") && !strings.EqualFold(name, "by") {
		return false
	}
	for i := range len(node) {
		switch c := node[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c != '.' && c != '_' && c != ':' && c != '-' && c != '[' && c != ']' && c != '"':
			return false
		}
	}
	return true
}
