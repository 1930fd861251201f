package express

import (
	"context"
	"net/http"
	"time"
)

// A Sending is a response that the lane sends while a server handles the request too, because
// that has more to do for it: to log it. To the server's handlers it is an
// http.ResponseWriter, of which the client gets nothing: that gets what the site has written
// into the Writer.
type Sending struct {
	w      *Writer
	body   []byte
	header http.Header
	tell   func(http.ResponseWriter, *http.Request)
	sent   bool
}

type sendingKey struct{}

// SendThrough has a server handle the request, whose handlers have to come to Send. It reports
// false, and nothing has been sent, if they have not. tell says to the writer that Send gets
// what the response is, but not its body.
func (w *Writer) SendThrough(server http.Handler, body []byte, tell func(http.ResponseWriter, *http.Request)) bool {
	s := &Sending{w: w, body: body, header: make(http.Header), tell: tell}
	c := w.conn
	ctx := context.WithValue(c.l.options.Context, sendingKey{}, s)
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, c.LocalAddr())
	r := newRequest(ctx, c.text, c.encrypted) // the site may have changed what it got
	r.RemoteAddr = c.RemoteAddr().String()
	server.ServeHTTP(s, r)
	return s.sent
}

// SendingOf returns the response that is being sent for a request, or nil.
func SendingOf(r *http.Request) *Sending {
	s, _ := r.Context().Value(sendingKey{}).(*Sending)
	return s
}

// Send sends the response, and tells what it is to the writer of the handlers in front.
func (s *Sending) Send(w http.ResponseWriter, r *http.Request) {
	if s.sent {
		return
	}
	s.sent = true
	s.w.Send(s.body)
	s.tell(w, r)
	_, _ = w.Write(s.body) // a client that is gone needs no error
}

// Header is the header as the handlers see it.
func (s *Sending) Header() http.Header { return s.header }

// WriteHeader does nothing: the client has the status.
func (s *Sending) WriteHeader(int) {}

// Write takes what the client has got already, or an error if it has not.
func (s *Sending) Write(b []byte) (int, error) {
	if s.w.err != nil {
		return 0, s.w.err
	}
	return len(b), nil
}

// Flush does nothing: the response has been sent.
func (s *Sending) Flush() {}

// EnableFullDuplex does nothing: the request has no body.
func (s *Sending) EnableFullDuplex() error { return nil }

// SetReadDeadline does nothing: deadlines are the connection's own.
func (s *Sending) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: deadlines are the connection's own.
func (s *Sending) SetWriteDeadline(time.Time) error { return nil }
