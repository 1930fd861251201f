package rfc9111

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// StoredHeader returns the response header without the fields that must not be
// stored (RFC 9111 §3.1): those of the connection, those that Connection or a
// qualified no-cache or private names, and what is no field in HTTP at all.
// Set-Cookie and Clear-Site-Data belong to one client, unless the options say
// otherwise, and Age is the cache's own to state; all three go too. A response with a content coding
// varies by Accept-Encoding, also if it does not say so. The map is new, the values are h's and
// must not be changed: who stores them packs them anyhow.
func StoredHeader(h http.Header, o Options) http.Header {
	h = canonicalNames(h)
	d, _ := directivesOf(h, o.Targeted)
	connection := connectionOptions(h)
	stored := make(http.Header, len(h))
	for name, values := range h {
		if neverStored(name) || isForOneClient(name, values) && !o.StoreSetCookie || !isToken(name) || !allStorable(values) ||
			slices.Contains(connection, name) ||
			slices.Contains(d.NoCacheFields, name) || slices.Contains(d.PrivateFields, name) {
			continue
		}
		stored[name] = values
	}
	varyByCoding(stored)
	return stored
}

// ForOneClient returns the fields of a response that StoredHeader leaves out because they are
// for the client alone whose request it answers; nil: there are none.
func ForOneClient(h http.Header, o Options) (own http.Header) {
	h = canonicalNames(h)
	d, _ := directivesOf(h, o.Targeted)
	connection := connectionOptions(h)
	for name, values := range h {
		forOne := isForOneClient(name, values) && !o.StoreSetCookie || slices.Contains(d.NoCacheFields, name) || slices.Contains(d.PrivateFields, name)
		if !forOne || neverStored(name) || slices.Contains(connection, name) {
			continue
		}
		if own == nil {
			own = make(http.Header)
		}
		own[name] = values
	}
	return own
}

// neverStored are the fields that end at this hop whatever the response says.
// All of Proxy-* goes, not only the three of RFC 9111 §3.1, because the others
// tell about a connection or an exchange that is over.
func neverStored(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Age":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

// StorableField reports whether a stored response may have a field of this name,
// which must be in its canonical form.
func StorableField(name string) bool {
	return !neverStored(name) && isToken(name) && textproto.CanonicalMIMEHeaderKey(name) == name
}

// StorableValue reports whether a stored response may have a field line of this value: it
// ends neither its line nor the header. Other control characters clients get as they come,
// from each node.
func StorableValue(value string) bool { return !strings.ContainsAny(value, "\r\n\x00") }

func allStorable(values []string) bool {
	for _, value := range values {
		if !StorableValue(value) {
			return false
		}
	}
	return true
}

// connectionOptions returns the field names in Connection (RFC 9110 §7.6.1).
// Essential fields are not among them: a sender must not name one that is meant
// for all recipients, and losing Vary would mix up variants.
func connectionOptions(h http.Header) []string {
	var names []string
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.CanonicalMIMEHeaderKey(trimOWS(name))
			if !slices.Contains(essential, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// NamesFields reports whether the Connection of a request names a field that a
// proxy passes on otherwise (RFC 9110 §7.6.1). Upstream does not get such a
// field: it answers another request than the one that the cache has seen. The
// other names are those of connection options, and of fields that end here
// anyway.
func NamesFields(connection []string) bool {
	for _, line := range connection {
		for name := range strings.SplitSeq(line, ",") {
			switch strings.ToLower(trimOWS(name)) {
			case "", "close", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "proxy-connection":
			default:
				return true
			}
		}
	}
	return false
}

// OtherContent makes a response's header that of a message with other content: a
// part, the whole that was put together from parts, or none (HEAD, 304). A
// Content-Digest is about the content of the one message that it came with (RFC
// 9530 §2); Repr-Digest (§3) and Unencoded-Digest are about the whole
// representation, and stay. The header is changed in place.
func OtherContent(h http.Header) { delete(h, "Content-Digest") }

// OtherBytes is OtherContent for a message with other bytes, as a part has. Content-MD5 is about
// the bytes that are sent (RFC 1864), but with a HEAD or a 304 about those of the GET.
func OtherBytes(h http.Header) {
	OtherContent(h)
	delete(h, "Content-Md5")
}

// Refresh returns the stored header as a 304 updates it (RFC 9111 §3.2, §4.3.4),
// in a new map. Neither argument is changed. Revalidated does this and judges
// the result. What the stored response varies by it goes on to vary by, because what
// compresses does not touch a 304, and then says nothing of Accept-Encoding there.
func Refresh(stored, notModified http.Header, o Options) http.Header {
	merged := maps.Clone(stored)
	if merged == nil {
		merged = make(http.Header, len(notModified))
	}
	for name, values := range StoredHeader(notModified, o) {
		if !describesBody(name) {
			merged[name] = values
		}
	}
	was, _ := VaryNames(stored)
	addVary(merged, was...)
	return StoredHeader(merged, o)
}

// describesBody are the fields that belong to the stored bytes and stay as they
// are. RFC 9111 §3.2 demands that of Content-Length and permits it for what the
// stored response depends on. Content-Type and ETag are among them because
// servers put a default type on a 304, and the tag of the uncompressed file.
func describesBody(name string) bool {
	switch name {
	case "Content-Length", "Content-Encoding", "Content-Type", "Content-Range", "Etag",
		"Content-Digest", "Content-Md5", "Digest", "Repr-Digest", "Unencoded-Digest":
		return true
	}
	return false
}

// HasTrailers reports whether fields came after the body (http.TrailerPrefix).
func HasTrailers(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// IsTrailer reports whether a field in the header of net/http comes after the body: one that
// Trailer names (RFC 9110 §6.6.2), or that has http.TrailerPrefix.
func IsTrailer(h http.Header, name string) bool {
	if strings.HasPrefix(name, http.TrailerPrefix) {
		return true
	}
	for _, line := range h["Trailer"] {
		for declared := range strings.SplitSeq(line, ",") {
			if http.CanonicalHeaderKey(trimOWS(declared)) == name {
				return true
			}
		}
	}
	return false
}
