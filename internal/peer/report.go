package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Reports are what nodes tell each other for those who operate the cluster. They
// change nothing, and nothing that is served depends on them, so they are JSON:
// a node of a newer build may say more, and one of an older build less.
const (
	pathInspect = "/1/inspect"
	pathStatus  = "/1/status"
	pathEntries = "/1/entries"

	// maxReport bounds a report on the wire, and maxObjects what is made of it: {} is two
	// bytes, and becomes some hundred.
	maxReport  = 1 << 20
	maxObjects = 4096
	// maxQuestion bounds what is asked for.
	maxQuestion = 1 << 20

	// MaxAsked bounds the nodes that one question of an operator goes to.
	MaxAsked = 64
)

// ErrNotAsked is why there is nothing of a node beyond MaxAsked. An answer names each such
// node, or it would pass for one about all.
var ErrNotAsked = fmt.Errorf("peer: not asked, since a question goes to %d nodes at most", MaxAsked)

// A Reporter tells of its node. What it returns becomes JSON.
type Reporter interface {
	// Inspect returns what the node knows of a query's key.
	Inspect(q *Query) any
	// Report returns how the node is.
	Report() any
	// Entries returns what the node has stored of what is asked for, in JSON.
	Entries(question []byte) (any, error)
}

func (s *Server) inspect(w http.ResponseWriter, r *http.Request) {
	if s.Reporter == nil {
		s.refuse(w)
		return
	}
	if q := s.query(w, r); q != nil {
		writeReport(w, s.Reporter.Inspect(q))
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	if s.Reporter == nil || !s.empty(w, r) {
		s.refuse(w)
		return
	}
	writeReport(w, s.Reporter.Report())
}

func (s *Server) entries(w http.ResponseWriter, r *http.Request) {
	question, err := io.ReadAll(io.LimitReader(r.Body, maxQuestion+1))
	if err != nil || len(question) > maxQuestion || s.Reporter == nil {
		s.refuse(w)
		return
	}
	answer, err := s.Reporter.Entries(question)
	if err != nil {
		s.refuse(w)
		return
	}
	writeReport(w, answer)
}

func writeReport(w http.ResponseWriter, report any) {
	b, err := json.Marshal(report)
	if err != nil || len(b) > maxReport {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b) // an error is that of an asker that is gone
}

// Inspect asks a node what it knows of a query's key. The breaker is not asked:
// who wants to know wants to know whether it answers.
func (c *Client) Inspect(ctx context.Context, to Node, q *Query, into any) error {
	if err := q.check(); err != nil {
		return fmt.Errorf("asking %s: %w", to.Name, err)
	}
	var w frameWriter
	w.frame(frameQuery, q.append)
	return c.report(ctx, to, pathInspect, w.buf, into)
}

// Status asks a node how it is.
func (c *Client) Status(ctx context.Context, to Node, into any) error {
	return c.report(ctx, to, pathStatus, nil, into)
}

// Entries asks a node what it has stored. The question is JSON.
func (c *Client) Entries(ctx context.Context, to Node, question []byte, into any) error {
	return c.report(ctx, to, pathEntries, question, into)
}

func (c *Client) report(ctx context.Context, to Node, path string, question []byte, into any) error {
	resp, err := c.post(ctx, to, path, bytes.NewReader(question), int64(len(question)))
	if err != nil {
		return fmt.Errorf("asking %s: %w", to.Name, causeOf(ctx, err))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReport+1))
	switch {
	case err != nil:
		return fmt.Errorf("asking %s: %w", to.Name, causeOf(ctx, err))
	case len(b) > maxReport, bytes.Count(b, []byte("{")) > maxObjects:
		return fmt.Errorf("asking %s: %w", to.Name, malformed("a report that is too long"))
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("asking %s: %w", to.Name, malformed("a report that is no JSON"))
	}
	return nil
}
