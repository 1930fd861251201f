package rfc9111

import (
	"net/http"
	"strings"
)

// Upgrades reports whether a request asks for another protocol, and Caddy's
// reverse_proxy would pass that on (RFC 9110 §7.8): Connection has to name it.
// Then the answer is no response that could be stored.
//
// h2c is another protocol in name only. Its use here is over (RFC 9113 §3.1), a
// server need not take it up, and must not without HTTP2-Settings (RFC 7540
// §3.2.1); these Connection names, so a proxy drops them.
func Upgrades(request http.Header) bool {
	if !hasOption(request["Connection"], "upgrade") {
		return false
	}
	for _, line := range request["Upgrade"] {
		for protocol := range strings.SplitSeq(line, ",") {
			if protocol = trimOWS(protocol); protocol != "" && !strings.EqualFold(protocol, "h2c") {
				return true
			}
		}
	}
	return len(request["Upgrade"]) > 0 && len(request["Http2-Settings"]) > 0 && !hasOption(request["Connection"], "http2-settings")
}

// DropUpgrade takes out of a request's header what asks for a protocol that
// nobody will change to. Servers that were asked for h2c without its settings may
// refuse the whole request, and that would not be what it deserves. The header
// is changed in place; its lines are not.
func DropUpgrade(request http.Header) {
	if len(request["Upgrade"]) == 0 || !hasOption(request["Connection"], "upgrade") {
		return
	}
	var left []string
	for _, line := range request["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			switch option = trimOWS(option); strings.ToLower(option) {
			case "", "upgrade", "http2-settings":
			default:
				left = append(left, option)
			}
		}
	}
	delete(request, "Upgrade")
	delete(request, "Http2-Settings")
	delete(request, "Connection")
	if len(left) > 0 {
		request["Connection"] = []string{strings.Join(left, ", ")}
	}
}

// hasOption reports whether Connection has an option, given in lower case
// (RFC 9110 §7.6.1).
func hasOption(connection []string, option string) bool {
	for _, line := range connection {
		for member := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(trimOWS(member), option) {
				return true
			}
		}
	}
	return false
}
