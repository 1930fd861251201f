package rules

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// TTL is a freshness for responses that state none.
type TTL struct {
	// How long they are fresh.
	Duration caddy.Duration `json:"duration"`

	// For which status codes. Default: those that RFC 9110 §15.1 calls
	// heuristically cacheable.
	Status []int `json:"status,omitempty"`
}

// Lifetimes returns the freshness for each status, as rfc9111.Options has it: 0 stands for
// those that are heuristically cacheable. Two for one status are an error.
func Lifetimes(all []TTL) (map[int]time.Duration, error) {
	lifetimes := make(map[int]time.Duration)
	for _, ttl := range all {
		d := time.Duration(ttl.Duration)
		if d < 0 {
			return nil, fmt.Errorf("ttl %s is negative", d)
		}
		if len(ttl.Status) == 0 {
			if _, named := lifetimes[0]; named {
				return nil, fmt.Errorf("ttl %s: a ttl without status codes stands before it; leave one of them out", d)
			}
			lifetimes[0] = d
		}
		for _, status := range ttl.Status {
			if status < 200 || status > 599 {
				return nil, fmt.Errorf("ttl %s for status %d: no final status code", d, status)
			}
			if _, named := lifetimes[status]; named {
				return nil, fmt.Errorf("ttl %s for status %d: the status has a ttl before; leave one of them out", d, status)
			}
			lifetimes[status] = d
		}
	}
	return lifetimes, nil
}
