package caddygroupcache

import "github.com/caddy-groupcache/caddy-groupcache/internal/peer"

// What the tests with real processes take from those without.

var NewTap = newTap

func (tp *tap) Addr() string                          { return tp.addr }
func (tp *tap) Recorded() (packets, streams [][]byte) { return tp.recorded() }

// IdentityOf returns what a node with these secrets is to others.
func IdentityOf(secrets ...string) (*peer.Identity, error) {
	keys, err := readSecrets(secrets)
	if err != nil {
		return nil, err
	}
	id := new(peer.Identity)
	return id, id.SetSecrets(peerSecrets(keys))
}
