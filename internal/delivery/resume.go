package delivery

import (
	"errors"
	"net/http"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Resumer serves the rest of a response whose first bytes a client has got
// from elsewhere. The upstream answers with the whole, of which it drops what the
// client has. No tag tells that this is the same response: a strong one may be an
// encoder's (rfc9111.StrongTag), or an application's that is wrong. So its header
// must not contradict the one that the client has, and its bytes are compared with
// the digest of those that the client has, before the first of the others is sent. As
// long as the client has none, its header must be the same.
type Resumer struct {
	http.ResponseWriter
	header http.Header
	entry  *store.Entry // whose header the client has
	sent   *Sent
	at     int64 // in the body that comes in
	digest xxhash.Digest
	wrote  bool // the header
	other  bool // this is not the response that the client has the beginning of
}

// NewResumer returns a writer for the rest of an entry's body, of which the client has
// some.
func NewResumer(w http.ResponseWriter, e *store.Entry, sent *Sent) *Resumer {
	return &Resumer{ResponseWriter: w, header: make(http.Header), entry: e, sent: sent}
}

// errOther ends a response that is not the one which the client has the beginning of. It is
// an error and no panic: other handlers may write from goroutines of their own.
var errOther = errors.New("the upstream's response is another one by now")

// Broken reports whether the upstream has sent another response, less than the client has,
// or less than the entry states and the client needs.
func (s *Resumer) Broken() bool {
	size, known := s.entry.ContentLength()
	return s.other || s.at < s.sent.At || known && s.at < size && !Served(s.ResponseWriter)
}

// Run has handlers answer a request. That they stop when the client needs no more
// is no error.
func (s *Resumer) Run(next func(http.ResponseWriter, *http.Request) error, r *http.Request) (err error) {
	defer func() {
		if !Satisfied(s.ResponseWriter) {
			return
		}
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
		err = nil
	}()
	if err = next(s, r); err == nil && !s.wrote {
		s.WriteHeader(http.StatusOK)
	}
	return err
}

// Header returns a header that no client sees: it has got one.
func (s *Resumer) Header() http.Header { return s.header }

// WriteHeader looks whether this is the response that the client has the beginning of.
func (s *Resumer) WriteHeader(status int) {
	if status < 200 || s.wrote {
		return
	}
	s.wrote = true
	s.digest.Reset()
	had := s.entry.Header()
	s.other = status != s.entry.Status || !rfc9111.Continues(had, s.header) || s.sent.At == s.sent.start && !rfc9111.ContinuesUnseen(had, s.header)
}

func (s *Resumer) Write(p []byte) (int, error) {
	if !s.wrote {
		s.WriteHeader(http.StatusOK)
	}
	if Satisfied(s.ResponseWriter) {
		return 0, ErrSated
	}
	if s.other {
		return 0, errOther
	}
	old := max(min(int64(len(p)), s.sent.At-s.at), 0)
	if s.compare(p[:old]); s.other {
		return 0, errOther
	}
	if p = p[old:]; len(p) == 0 {
		return int(old), nil
	}
	n, err := s.ResponseWriter.Write(p)
	s.at += int64(n)
	return int(old) + n, err
}

// compare takes bytes that come before what the client is to get, and notes when those
// that it has turn out to be others.
func (s *Resumer) compare(p []byte) {
	if len(p) == 0 {
		return
	}
	before := min(max(s.sent.start-s.at, 0), int64(len(p)))
	s.at += int64(len(p))
	_, _ = s.digest.Write(p[before:]) // never fails
	s.other = s.at == s.sent.At && s.digest.Sum64() != s.sent.digest.Sum64()
}

// PassTrailers gives the client the fields that came after the body.
func (s *Resumer) PassTrailers() {
	for name, values := range s.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			s.ResponseWriter.Header()[name] = values
		}
	}
}

// FlushError flushes what the client may have.
func (s *Resumer) FlushError() error {
	if s.at < s.sent.At || s.other {
		return nil
	}
	return http.NewResponseController(s.ResponseWriter).Flush()
}
