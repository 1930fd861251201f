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

// TellsClients reports whether a text has placeholders by which an upstream could tell
// clients apart. Addresses of clients are none, since each proxy tells them.
func TellsClients(text string) bool {
	return identity.MatchString(text) || slices.ContainsFunc(NotInKey(text), func(p string) bool {
		return !strings.HasPrefix(p, "{http.") // map or another module has made it of anything
	})
}

var (
	placeholder = regexp.MustCompile(`\{[\w.*>-]+\}`)

	// inKey are placeholders that follow from the key, that are the same for all clients, or
	// that the upstream's response makes.
	inKey = regexp.MustCompile(`^\{(http\.request\.(uri|orig_uri|host|hostport|port|scheme|method|orig_method|uuid|duration)|http\.(error|reverse_proxy|intercept|matchers|shutting_down|time_until_shutdown|response)|http\.vars\.(root|fs|matcher)|env|system|time|file)\b`)

	answer = regexp.MustCompile(`\{http\.(reverse_proxy|intercept)\.[\w.*>-]+\}`)

	identity = regexp.MustCompile(`\{http\.(reverse_proxy\.header|request\.header|request\.cookie|request\.tls|vars|auth|regexp)\.`)
)
