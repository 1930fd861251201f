package purging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// maxRequest is the size of the largest request, in bytes.
const maxRequest = 1 << 20

// A Request is what POST /groupcache/purge takes. It names what is to be
// purged, by one or more of its fields.
type Request struct {
	// The group to purge. Default: all groups.
	Group string `json:"group,omitempty"`

	// URLs as clients ask for them, with scheme, host and query: all variants.
	URLs []string `json:"urls,omitempty"`

	// Beginnings of URLs, with scheme and host.
	Prefixes []string `json:"prefixes,omitempty"`

	// Hosts, with a port for that port only.
	Hosts []string `json:"hosts,omitempty"`

	// Cache tags, exactly. White space and commas separate tags here, too.
	Tags []string `json:"tags,omitempty"`

	// Everything.
	All bool `json:"all,omitempty"`

	// Make it stale instead: it may be served once more while it is fetched
	// anew, where staleness is allowed at all.
	Soft bool `json:"soft,omitempty"`
}

// ReadRequest reads the JSON in a request's body. The error tells what would be right.
func ReadRequest(w http.ResponseWriter, r *http.Request) (Request, error) {
	var req Request
	var sent bytes.Buffer
	d := json.NewDecoder(io.TeeReader(http.MaxBytesReader(w, r.Body, maxRequest), &sent))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return req, fmt.Errorf("reading what to purge: %w; it takes group, urls, prefixes, hosts, tags, all and soft, in at most %d bytes", err, maxRequest)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return req, errors.New("reading what to purge: there is more than one JSON object")
	}
	if name := repeated(sent.Bytes()); name != "" {
		return req, fmt.Errorf("reading what to purge: %s stands there twice: join the two lists", name)
	}
	return req, nil
}

// repeated returns the name of a member that an object has twice, of which only the last is
// decoded; "": each is there once. What it gets has been decoded before.
func repeated(object []byte) string {
	d := json.NewDecoder(bytes.NewReader(object))
	_, _ = d.Token()
	seen := make(map[string]bool)
	for d.More() {
		token, _ := d.Token()
		name, _ := token.(string)
		if name = strings.ToLower(name); seen[name] { // in any case, as it is decoded
			return name
		}
		seen[name] = true
		if err := d.Decode(new(json.RawMessage)); err != nil {
			return ""
		}
	}
	return ""
}

// Selectors returns what a request names, none of it longer than a number of bytes. A URL
// is in the form of store.URLOf, in each way in which clients spell it.
func (req Request) Selectors(longest int) ([]store.Selector, error) {
	var selectors []store.Selector
	add := func(kind store.Kind, value string) {
		selectors = append(selectors, store.Selector{Kind: kind, Value: value})
	}
	addURL := func(kind store.Kind, u string) {
		for _, spelling := range rfc9111.Spellings(u) {
			if len(spelling) <= longest { // or nothing is stored of it
				add(kind, spelling)
			}
		}
	}
	for _, text := range slices.Concat(req.URLs, req.Prefixes, req.Hosts, req.Tags) {
		if strings.ContainsRune(text, utf8.RuneError) { // JSON has it in place of what is no UTF-8
			return nil, fmt.Errorf("%.200q is no UTF-8: write the bytes of a URL as %%E9, and purge by a tag of another encoding with a request to the site", text)
		}
	}
	for _, text := range req.URLs {
		u, err := store.ParseURL(text, true, longest)
		if err != nil {
			return nil, fmt.Errorf("url %.200q: %w", text, err)
		}
		addURL(store.URL, u)
	}
	for _, text := range req.Prefixes {
		u, err := store.ParseURL(text, false, longest)
		if err != nil {
			return nil, fmt.Errorf("prefix %.200q: %w", text, err)
		}
		// A star at the end is a pattern's or stands for itself: without it, both are meant.
		addURL(store.Prefix, strings.TrimRight(u, "*"))
	}
	for _, host := range req.Hosts {
		h, err := store.ParseHost(host)
		switch {
		case err != nil:
			return nil, fmt.Errorf("host %.200q: %w", host, err)
		case len(h) > inbound.MaxHost:
			return nil, fmt.Errorf("host %.200q: it is longer than %d bytes", host, inbound.MaxHost)
		}
		add(store.Host, strings.TrimSuffix(h, ":"))
	}
	for _, tag := range req.Tags {
		named := rfc9111.SplitTags(tag)
		if tag != strings.TrimSpace(tag) || tag == "" || slices.ContainsFunc(named, func(one string) bool { return len(one) > rfc9111.MaxTagLength }) {
			return nil, fmt.Errorf("tag %.200q: 1 to %d bytes, without space around them", tag, rfc9111.MaxTagLength)
		}
		if len(named) == 0 {
			return nil, fmt.Errorf("tag %.200q: only separators", tag)
		}
		for _, tag := range named { // no response has a tag with a separator in it
			add(store.Tag, tag)
		}
	}
	if req.All {
		add(store.All, "")
	}
	if len(selectors) == 0 {
		return nil, errors.New("nothing is named to purge: give urls, prefixes, hosts, tags, or all")
	}
	return selectors, nil
}

// Purges returns purges of the selectors, each of which fits a message.
func (req Request) Purges(selectors []store.Selector) []store.Purge {
	return peer.SplitPurge(store.Purge{Group: req.Group, Soft: req.Soft}, selectors)
}
