package purging

import (
	"sync"
	"sync/atomic"
	"time"
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

const (
	// quiet is the time between two lines about one client.
	quiet = time.Minute

	// maxClients bounds what is remembered for that. Further clients share a line.
	maxClients = 256
)

// Refusals counts the purges that were refused, and says which of them are logged. The
// zero value has none. Its methods may be called at the same time.
type Refusals struct {
	counts [refusalCount]atomic.Int64

	mu      sync.Mutex // guards clients
	clients map[string]*quietClient
}

type quietClient struct {
	logged time.Time
	held   int // refusals since
}

// Count returns how many were refused for a reason.
func (r *Refusals) Count(why Refusal) int64 { return r.counts[why].Load() }

// Note counts a refusal of a client. It reports whether there is to be a line about it,
// and how many refusals of that client have had none since the last line.
func (r *Refusals) Note(why Refusal, client string, now time.Time) (held int, log bool) {
	r.counts[why].Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clients == nil {
		r.clients = make(map[string]*quietClient)
	}
	c := r.clients[client]
	if c == nil {
		c = r.addLocked(client, now)
	}
	if !c.logged.IsZero() && now.Sub(c.logged) < quiet {
		c.held++
		return 0, false
	}
	held = c.held
	c.logged, c.held = now, 0
	return held, true
}

// addLocked makes room for a client, or returns what those share for whom there is
// none.
func (r *Refusals) addLocked(client string, now time.Time) *quietClient {
	if len(r.clients) >= maxClients {
		for name, c := range r.clients {
			if now.Sub(c.logged) >= quiet {
				delete(r.clients, name)
			}
		}
	}
	if len(r.clients) >= maxClients {
		client = "" // one more, for all others
	}
	c := r.clients[client]
	if c == nil {
		c = new(quietClient)
		r.clients[client] = c
	}
	return c
}
