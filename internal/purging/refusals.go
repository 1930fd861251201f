package purging

import (
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/ratelimit"
)

// A Refusal is why a purge was refused.
type Refusal uint8

const (
	Forbidden     Refusal = iota // whoever asked may not
	NotUnderstood                // what was asked is not understood
	refusalCount
)

var refusalNames = [refusalCount]string{"forbidden", "not_understood"}

// String returns the refusal as a label value.
func (r Refusal) String() string { return refusalNames[r] }

// AllRefusals returns each of them once.
func AllRefusals() []Refusal { return []Refusal{Forbidden, NotUnderstood} }

// maxClients bounds the clients that have lines of their own.
const maxClients = 256

// Refusals counts the purges that were refused, and says which of them are logged. The
// zero value has none. Its methods may be called at the same time.
type Refusals struct {
	counts [refusalCount]atomic.Int64
	lines  ratelimit.Limiter // by client
}

// Count returns how many were refused for a reason.
func (r *Refusals) Count(why Refusal) int64 { return r.counts[why].Load() }

// Note counts a refusal of a client. It reports whether there is to be a line about it,
// and how many refusals of that client have had none since the last line.
func (r *Refusals) Note(why Refusal, client string, now time.Time) (held int, log bool) {
	r.counts[why].Add(1)
	return r.lines.Take(client, maxClients, now)
}
