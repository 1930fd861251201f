// Package inbound reads from a client's request what decides about the cache beside its
// method and URL: fields that override the URL for many upstreams, fields that ask for
// something else than the whole response, and the content of a QUERY.
package inbound

// The largest request target and host, in bytes, of which something is stored. Names in
// the DNS have half of that.
const (
	MaxTarget = 16 << 10
	MaxHost   = 512
)
