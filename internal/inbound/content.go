package inbound

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// MaxContent is the size of the largest content, in bytes, that a cached QUERY may
// have.
const MaxContent = 64 << 10

// Content is the content of a QUERY (RFC 10008); nil: the request is none.
type Content []byte

// errNoContent tells that a QUERY is not cached.
var errNoContent = errors.New("the content is too large or incremental, or a part of the response is asked for")

// ReadContent reads the content of a QUERY and leaves the request with the same body.
// It returns an error for a QUERY that is not cached, whose body is left as it was too:
// of more than MaxContent, incremental, or for a part of the response.
func ReadContent(r *http.Request) (Content, error) {
	if len(r.Header["Range"]) > 0 || rfc9111.Incremental(r.Header) || r.ContentLength > MaxContent {
		return nil, errNoContent
	}
	body := r.Body
	read, err := io.ReadAll(io.LimitReader(body, MaxContent+1))
	if err != nil || len(read) > MaxContent || len(r.Trailer) > 0 {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(read), body), body}
		if err == nil {
			err = errNoContent
		}
		return nil, err
	}
	c := Content(read)
	c.PutBack(r)
	return c, nil
}

// PutBack gives a request its body anew. It does nothing on nil.
func (c Content) PutBack(r *http.Request) {
	if c == nil {
		return
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(c)), int64(len(c)), nil
}

// Key returns the key of a QUERY to a resource that has the given one for GET. The
// content and the fields that tell its meaning are part of it (RFC 10008 §2.7).
func (c Content) Key(resource store.Key, header http.Header) store.Key {
	b := store.AppendPart(nil, rfc9111.MethodQuery)
	b = append(b, resource[:]...)
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language"} {
		b = store.AppendPart(b, "") // no list of lines looks like another one
		for _, line := range header[name] {
			b = store.AppendPart(append(b, 1), line)
		}
	}
	sum := sha256.New()
	_, _ = sum.Write(store.AppendPart(b, "")) // never fails
	_, _ = sum.Write(c)
	return store.Key(sum.Sum(nil))
}

// QueryGroup is the cache group (RFC 9875) that all responses to QUERY requests for a
// target are in, so that a change of the target drops them: their keys can't be told
// from it. No response can name it, since names have no control characters.
func QueryGroup(target string) string {
	sum := sha256.Sum256([]byte(target))
	return "\x00" + rfc9111.MethodQuery + " " + hex.EncodeToString(sum[:16])
}
