package caddygroupcache

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

const (
	// minSecret is the least number of random bytes in a secret. Whoever
	// reaches a port gets to see what was made with its keys, and could try
	// weak ones at home.
	minSecret = 32
	// maxSecrets is enough for a rotation that overtakes another one; their
	// ids have to fit where nodes tell each other which they hold.
	maxSecrets = peer.MaxSecrets
)

// clusterKeys is all that follows from one secret: a key for each purpose, by
// HKDF-SHA256 (RFC 5869) with a label of its own.
type clusterKeys struct {
	id      keyID       // tells secrets apart, says nothing about them
	gossip  []byte      // memberlist's, for AES-256
	packets []byte      // authenticates packets of gossip, see gossip_seal.go
	peers   peer.Secret // the authority for certificates
}

// keyID is the short public name of a secret.
type keyID [6]byte

func deriveKeys(secret []byte) (clusterKeys, error) {
	var k clusterKeys
	var err error
	derive := func(label string, n int) []byte {
		key, deriveErr := hkdf.Key(sha256.New, secret, nil, "caddy-groupcache "+label+" v1", n)
		if deriveErr != nil {
			err = fmt.Errorf("deriving the key for %s: %w", label, deriveErr)
		}
		return key
	}
	copy(k.id[:], derive("id", len(k.id)))
	k.gossip = derive("gossip", 32)
	k.packets = derive("gossip packets", 32)
	k.peers = peer.Secret{ID: fmt.Sprintf("%x", k.id), Seed: derive("peers authority", 32)}
	return k, err
}

// readSecrets turns what the configuration says into keys. A secret that comes
// twice counts once.
func readSecrets(secrets []string) ([]clusterKeys, error) {
	var all []clusterKeys
	for i, s := range secrets {
		raw, err := decodeSecret(s)
		if err != nil {
			return nil, fmt.Errorf("secret %d %w: make one with caddy groupcache keygen", i+1, err)
		}
		k, err := deriveKeys(raw)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(other clusterKeys) bool { return other.id == k.id }) {
			all = append(all, k)
		}
	}
	if len(all) > maxSecrets {
		return nil, fmt.Errorf("%d secrets are too many: at most %d", len(all), maxSecrets)
	}
	return all, nil
}

// decodeSecret reads base64 in the alphabet of RFC 4648 §4 or §5, with or
// without padding. The error never shows the secret.
func decodeSecret(s string) ([]byte, error) {
	s = strings.TrimSpace(s) // a file ends with a newline
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	raw, err := encoding.Strict().DecodeString(strings.TrimRight(s, "="))
	switch {
	case err != nil || strings.ContainsAny(s, "\r\n"):
		return nil, fmt.Errorf("is not base64 of %d or more random bytes", minSecret)
	case len(raw) < minSecret:
		return nil, fmt.Errorf("is too short, %d bytes: it must be %d or more random bytes in base64", len(raw), minSecret)
	case s == strings.ToLower(s), s == strings.ToUpper(s), predictable(raw):
		return nil, fmt.Errorf("does not look random: it must be %d or more random bytes in base64", minSecret)
	}
	return raw, nil
}

// predictable reports what no generator of random bytes makes: fewer than 16
// different bytes among the first 32, or nothing but printable characters,
// which is a passphrase that somebody encoded. The chance that 32 random bytes
// look like that, or that their base64 has letters of one case only (it is hex,
// or a passphrase as it is), is less than one in 2^30.
func predictable(raw []byte) bool {
	seen := make(map[byte]bool)
	printable := true
	for _, b := range raw[:minSecret] {
		seen[b] = true
	}
	for _, b := range raw {
		printable = printable && (' ' <= b && b <= '~' || b == '\n' || b == '\r' || b == '\t')
	}
	return len(seen) < 16 || printable
}
