package caddygroupcache

import (
	"sync/atomic"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// What the tests with real processes take from those without.

// ExpectedPanics counts those that tests provoke in goroutines of this process. Any
// other fails the run: a guarded goroutine hides it from the test in which it happens.
var ExpectedPanics atomic.Int64

// IdentityOf returns what a node with these secrets is to others.
func IdentityOf(secrets ...string) (*peer.Identity, error) {
	keys, err := gossip.ReadSecrets("", secrets)
	if err != nil {
		return nil, err
	}
	id := new(peer.Identity)
	return id, id.SetSecrets(gossip.PeerSecrets(keys))
}

// ProtocolVersion is what a node's meta names.
const ProtocolVersion = protocolVersion
