package delivery

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// ServePart answers a request for parts of a stored response whose header has
// been set: single, several, suffix, or none that can be satisfied (RFC 9110
// §14). It returns where in the body it should stop, and why it did not get
// there.
func ServePart(w http.ResponseWriter, r *http.Request, body *Body) (end int64, err error) {
	header := w.Header()
	ranges, ok := rfc9111.Ranges(r.Header["Range"], body.Size)
	switch {
	case !ok || !rfc9111.RangeApplies(r.Header, header):
		w.WriteHeader(http.StatusOK)
		return body.Size, body.Send(w, 0, body.Size)
	case len(ranges) == 0:
		refuse(w, body.Size)
		return 0, nil
	case len(ranges) == 1:
		start, length := ranges[0].Start, ranges[0].Length
		setPart(header, start, length, body.Size)
		w.WriteHeader(http.StatusPartialContent)
		return start + length, body.Send(w, start, length)
	}
	sendSeveral(w, body, ranges)
	return 0, nil
}

// refuse answers that a body of a size has nothing of what was asked for. What the response
// says of its freshness and its content is not about that answer.
func refuse(w http.ResponseWriter, size int64) {
	header := w.Header()
	rfc9111.OtherBytes(header)
	for name := range header {
		switch name {
		case "Content-Encoding", "Etag", "Last-Modified", "Expires", "Surrogate-Control":
			delete(header, name)
		}
		if strings.HasSuffix(name, "Cache-Control") { // or a targeted one (RFC 9213)
			delete(header, name)
		}
	}
	header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
	http.Error(w, "invalid range: failed to overlap", http.StatusRequestedRangeNotSatisfiable)
}

// sendSeveral answers with several parts of a body (RFC 9110 §14.6). If a part is lost, the
// response is cut off. http.ServeContent would read the body in a goroutine of its own, and a
// read may run the handlers behind the cache, to get back a lost chunk. That goroutine goes on
// when the client is gone and the request has ended, and a panic in it ends the process.
func sendSeveral(w http.ResponseWriter, body *Body, ranges []rfc9111.Range) {
	header := w.Header()
	rfc9111.OtherBytes(header)
	kind, boundary := header["Content-Type"], multipart.NewWriter(nil).Boundary()
	write := func(w io.Writer, send func(w io.Writer, one rfc9111.Range) error) error {
		parts := multipart.NewWriter(w)
		if err := parts.SetBoundary(boundary); err != nil {
			return err
		}
		for _, one := range ranges {
			fields := textproto.MIMEHeader{"Content-Range": {contentRange(one.Start, one.Length, body.Size)}}
			if len(kind) > 0 {
				fields["Content-Type"] = kind
			}
			part, err := parts.CreatePart(fields)
			if err != nil {
				return err
			}
			if err := send(part, one); err != nil {
				return err
			}
		}
		return parts.Close()
	}
	var size counter
	_ = write(&size, func(_ io.Writer, one rfc9111.Range) error { // it takes everything
		size += counter(one.Length)
		return nil
	})
	header["Content-Type"] = []string{"multipart/byteranges; boundary=" + boundary}
	header["Content-Length"] = []string{strconv.FormatInt(int64(size), 10)}
	w.WriteHeader(http.StatusPartialContent)
	err := write(w, func(w io.Writer, one rfc9111.Range) error { return body.Send(w, one.Start, one.Length) })
	if errors.As(err, new(MissingChunk)) {
		panic(http.ErrAbortHandler)
	}
}

// A counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func setPart(header http.Header, start, length, size int64) {
	rfc9111.OtherBytes(header)
	header.Set("Content-Range", contentRange(start, length, size))
	header.Set("Content-Length", strconv.FormatInt(length, 10))
}

func contentRange(start, length, size int64) string {
	whole := "*"
	if size != rfc9111.UnknownSize {
		whole = strconv.FormatInt(size, 10)
	}
	return fmt.Sprintf("bytes %d-%d/%s", start, start+length-1, whole)
}

// AnswerNotModified answers a conditional request, whose header has been set, with 304 if
// the client has the representation (RFC 9111 §4.3.2).
func AnswerNotModified(w http.ResponseWriter, r *http.Request, status int) bool {
	if len(r.Header["If-None-Match"]) == 0 && len(r.Header["If-Modified-Since"]) == 0 {
		return false
	}
	header := w.Header()
	if !rfc9111.NotModified(r.Header, status, header) {
		return false
	}
	header.Del("Content-Length")
	header.Del("Content-Range")
	rfc9111.OtherContent(header)
	w.WriteHeader(http.StatusNotModified)
	return true
}

// WantsPart reports whether a request may be answered with a part.
func WantsPart(r *http.Request, status int) bool {
	return status == http.StatusOK && r.Method == http.MethodGet && len(r.Header["Range"]) > 0
}

// PartOf prepares the answer to a request for one range of a response that is
// still coming in: it changes status and header, and returns a writer that
// takes the whole body and passes on the range. What it can't do it answers
// with the whole, as RFC 9110 §14.2 allows.
func PartOf(w http.ResponseWriter, r *http.Request, status int, header http.Header) (http.ResponseWriter, int) {
	if !WantsPart(r, status) || !rfc9111.RangeApplies(r.Header, header) {
		return w, status
	}
	size, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		return w, status
	}
	start, length, ok := rfc9111.SingleRange(r.Header["Range"], size)
	if !ok {
		return w, status
	}
	setPart(header, start, length, size)
	return &PartWriter{ResponseWriter: w, start: start, end: start + length, size: size}, http.StatusPartialContent
}

// OfPart prepares the answer to a request for one range of which a part that is still coming
// in has the beginning, and maybe all. It is to be used where the upstream has answered 206 to
// the client's own If-Range. It reports false if the part has nothing of the range.
func OfPart(w http.ResponseWriter, r *http.Request, p rfc9111.Part, header http.Header) (http.ResponseWriter, bool) {
	start, length, ok := p.Of(r.Header["Range"])
	if !ok {
		return w, false
	}
	setPart(header, start, length, p.Size)
	return &PartWriter{ResponseWriter: w, start: start, end: start + length, at: p.Start, size: p.Start + p.Length}, true
}

// A PartWriter takes a body and passes on the bytes from start to end.
type PartWriter struct {
	http.ResponseWriter
	start, end int64
	at         int64 // of the next byte in the body
	size       int64 // where what it takes ends
}

func (p *PartWriter) Write(b []byte) (int, error) {
	lo := min(max(p.start-p.at, 0), int64(len(b)))
	hi := min(max(p.end-p.at, lo), int64(len(b)))
	p.at += int64(len(b))
	if lo < hi {
		if n, err := p.ResponseWriter.Write(b[lo:hi]); err != nil {
			return int(lo) + n, err
		}
	}
	return len(b), nil
}

// Unwrap lets ResponseController flush.
func (p *PartWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// NewPartWriter returns a writer for the rest of a client's part, of which it has the
// bytes before at.
func NewPartWriter(w http.ResponseWriter, at, end, size int64) *PartWriter {
	return &PartWriter{ResponseWriter: w, start: at, end: end, at: at, size: size}
}

// Reached tells the writer of a part where in the body the next byte is that it gets:
// CopyFill, which skips what comes before the part, may have ended before that had come.
func Reached(w http.ResponseWriter, at int64) {
	if p, ok := w.(*PartWriter); ok {
		p.at = at
	}
}

// Served reports whether a client needs no more of a body.
func Served(w http.ResponseWriter) bool {
	p, ok := w.(*PartWriter)
	return ok && p.at >= p.end
}

// Satisfied reports whether a client needs no more of a body of which there is more.
func Satisfied(w http.ResponseWriter) bool {
	p, ok := w.(*PartWriter)
	return ok && p.at >= p.end && p.at < p.size
}

// ErrSated ends a response of which the client needs no more.
var ErrSated = errors.New("the client has all that it needs of the response")
