package inbound

import (
	"regexp"
	"slices"
	"strings"
)

// NotInKey returns the placeholders of Caddy in a text that may say more of a request than
// its cache key has.
func NotInKey(text string) (all []string) {
	for _, p := range placeholder.FindAllString(text, -1) {
		if !inKey.MatchString(p) {
			all = append(all, p)
		}
	}
	return all
}

// OfAnswers returns the placeholders of Caddy in a text that say what an upstream has
// answered: another one than the cache's, if it stands in front of the cache.
func OfAnswers(text string) []string { return answer.FindAllString(text, -1) }

// OfResponse returns the placeholders of Caddy in a text that are fields of the response so far.
func OfResponse(text string) []string { return response.FindAllString(text, -1) }

// TellsClients reports whether a text has placeholders by which an upstream could tell
// clients apart. Addresses of clients are none, since each proxy tells them.
func TellsClients(text string) bool {
	return strings.Contains(text, "{http.reverse_proxy.header.") ||
		slices.ContainsFunc(NotInKey(text), func(p string) bool { return !ofConnection.MatchString(p) })
}

var (
	// placeholder matches what names a part of a request in whatever characters, such as
	// {http.request.cookie.a+b} and {http.request.remote.host/24}. In other names there are
	// fewer, since a style sheet has braces too.
	placeholder = regexp.MustCompile(`\{(?:http\.[^{}"\\]+|[\w.*>-]+)\}`)

	// inKey are placeholders that follow from the key, that are the same for all clients, or
	// that the upstream's response makes. A name has to end there: a map may have made {env}
	// or {time-zone} of anything.
	inKey = regexp.MustCompile(`^\{((http\.request\.(uri(_escaped)?|orig_uri|host|hostport|port|scheme|method|orig_method|uuid|duration(_ms)?)|http\.(error|reverse_proxy|intercept|matchers|shutting_down|time_until_shutdown|response)|http\.vars\.(root|fs|matcher))[.}]|(env|system|time|file)\.)`)

	answer = regexp.MustCompile(`\{http\.(reverse_proxy|intercept)\.[^{}"\\]+\}`)

	response = regexp.MustCompile(`\{http\.response\.header\.[^{}"\\]+\}`)

	// ofConnection are placeholders that tell where a request has come from, and how.
	ofConnection = regexp.MustCompile(`^\{http\.(request\.(remote|local|proto|proto_name)|vars\.client_ip)[./}]`)
)
