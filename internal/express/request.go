package express

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// A verdict is what the bytes at the front of a connection are.
type verdict uint8

const (
	unsure     verdict = iota // nothing that can be told, so nothing of this connection is looked at any more
	incomplete                // the beginning of a request
	foreign                   // a whole request without a body, which is not for the lane
	candidate                 // a whole request that the lane may answer
)

// scan looks at the bytes with which a request begins, and returns where it ends. It
// is strict: where two readers of HTTP/1.1 (RFC 9112) could differ, or where a body
// follows, it is unsure.
func scan(b []byte) (end int, v verdict) {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !isRequestStart(b) {
		return 0, unsure
	}
	if !ok {
		return 0, incomplete
	}
	v = verdictOfLine(line)
	hosts := 0
	for v != unsure {
		if line, rest, ok = bytes.Cut(rest, []byte("\n")); !ok {
			return 0, incomplete
		}
		if len(line) == 1 && line[0] == '\r' {
			if hosts != 1 {
				v = min(v, foreign)
			}
			return len(b) - len(rest), v
		}
		v = min(v, verdictOfField(line, &hosts))
	}
	return 0, unsure
}

// isRequestStart reports whether bytes are the beginning of a GET or HEAD, as far as they go.
func isRequestStart(b []byte) bool {
	for _, method := range []string{"GET /", "HEAD /"} {
		n := min(len(b), len(method))
		if string(b[:n]) == method[:n] {
			return true
		}
	}
	return false
}

// targetOf returns the target of a request that scan takes for a candidate.
func targetOf(b []byte) []byte {
	_, b, _ = bytes.Cut(b, []byte(" "))
	target, _, _ := bytes.Cut(b, []byte(" "))
	return target
}

// verdictOfLine judges a request line, which begins as isRequestStart says.
func verdictOfLine(line []byte) verdict {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, protocol, _ := bytes.Cut(rest, []byte(" "))
	if string(protocol) != "HTTP/1.1\r" {
		return unsure
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f || c == '#' || c == '"' || c == '\\' {
			return unsure
		}
	}
	if len(method) != len("GET") {
		return foreign
	}
	return candidate
}

// verdictOfField judges a line of a header, and counts those of Host.
func verdictOfField(line []byte, hosts *int) verdict {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || len(value) == 0 || value[len(value)-1] != '\r' {
		return unsure
	}
	v := candidate
	for _, c := range name {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '-':
		case c == '_', c == '.':
			v = foreign // Caddy drops some of these
		default:
			return unsure
		}
	}
	value = value[:len(value)-1]
	for _, c := range value {
		switch {
		case c < ' ' && c != '\t', c == 0x7f:
			return unsure
		case c > 0x7f:
			v = foreign
		}
	}
	value = bytes.Trim(value, " \t")
	switch kindOf(name) {
	case fieldHost:
		*hosts++
		if !plainHost(value) {
			return foreign
		}
	case fieldConnection:
		if !bytes.EqualFold(value, []byte("keep-alive")) {
			return unsure
		}
	case fieldFraming:
		return unsure
	case fieldForeign:
		return foreign
	}
	return v
}

// plainHost reports whether a Host is one that all readers take for the same.
func plainHost(host []byte) bool {
	named := false
	for _, c := range host {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9':
			named = true
		case c == '.', c == '-', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return named
}

const (
	fieldOther = iota
	fieldHost
	fieldConnection
	fieldFraming // by which a body, or something else than HTTP/1.1, may follow
	fieldForeign // which only the normal path answers
)

var fieldKinds = map[string]int{
	"host": fieldHost, "connection": fieldConnection,
	"content-length": fieldFraming, "transfer-encoding": fieldFraming, "upgrade": fieldFraming, "expect": fieldFraming,
	"http2-settings": fieldFraming, "trailer": fieldFraming, "keep-alive": fieldFraming, "proxy-connection": fieldFraming,
	"range": fieldForeign, "if-range": fieldForeign, "if-match": fieldForeign, "if-none-match": fieldForeign,
	"if-modified-since": fieldForeign, "if-unmodified-since": fieldForeign, "authorization": fieldForeign,
	"proxy-authorization": fieldForeign, "cache-control": fieldForeign, "pragma": fieldForeign, "te": fieldForeign,
}

// kindOf returns the kind of a field, whatever the case of its name.
func kindOf(name []byte) int {
	var b [len("proxy-authorization")]byte
	if len(name) > len(b) {
		return fieldOther // none of them has so long a name
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	return fieldKinds[string(b[:len(name)])]
}

// wellKnown is where Caddy answers challenges of certificate authorities, before any route.
const wellKnown = "/.well-known/"

// newRequest makes of a candidate what net/http makes of it. nil: the lane can't answer
// it, since a field has several lines.
func newRequest(ctx context.Context, text string, state *tls.ConnectionState) *http.Request {
	line, rest, _ := strings.Cut(text, "\r\n")
	_, line, _ = strings.Cut(line, " ")
	target, _, _ := strings.Cut(line, " ")
	u, err := url.ParseRequestURI(target)
	if err != nil || strings.HasPrefix(u.Path, wellKnown) {
		return nil
	}
	r := &http.Request{
		Method: http.MethodGet, URL: u, RequestURI: target, TLS: state,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: http.NoBody,
	}
	for line, rest, _ = strings.Cut(rest, "\r\n"); line != ""; line, rest, _ = strings.Cut(rest, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
		switch {
		case name == "Host":
			r.Host = value
		case r.Header[name] != nil:
			return nil
		default:
			r.Header[name] = []string{value}
		}
	}
	return r.WithContext(ctx)
}
