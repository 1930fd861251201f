package gossip

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
	// MinSecret is the least number of random bytes in a secret. An attacker who
	// reaches a port can record a handshake, and try weak secrets on it offline.
	MinSecret = 32
	// maxSecrets is enough for a rotation that overtakes another one; their
	// ids have to fit where nodes tell each other which they hold.
	maxSecrets = peer.MaxSecrets
)

// Keys is all that follows from one secret: a key for each purpose, by
// HKDF-SHA256 (RFC 5869) with a label of its own, which has the name of the cluster, if
// it has one: clusters with one secret and two names are as strange to each other as
// those with two secrets.
type Keys struct {
	ID      KeyID
	Peers   peer.Secret // the authority for certificates
	Saved   []byte      // authenticates what a node keeps over a restart
	packets []byte      // seals packets of gossip: see seal
}

// A KeyID is the short public name of a secret. It says nothing about the secret.
type KeyID [6]byte

func deriveKeys(secret []byte, cluster string) (Keys, error) {
	var k Keys
	var err error
	if cluster != "" {
		cluster = " of cluster " + cluster
	}
	derive := func(label string, n int) []byte {
		key, deriveErr := hkdf.Key(sha256.New, secret, nil, "caddy-groupcache "+label+cluster, n)
		if deriveErr != nil {
			err = fmt.Errorf("deriving the key for %s: %w", label, deriveErr)
		}
		return key
	}
	copy(k.ID[:], derive("id v1", len(k.ID)))
	k.Saved = derive("saved cache v1", 32)
	k.packets = derive("gossip packets v2", 32)
	k.Peers = peer.Secret{ID: fmt.Sprintf("%x", k.ID), Seed: derive("peers authority v1", 32)}
	return k, err
}

// ReadSecrets makes keys for a cluster, which may have no name, of secrets as the
// configuration gives them, in base64. A secret that comes twice counts once. Errors never show a secret.
func ReadSecrets(cluster string, secrets []string) ([]Keys, error) {
	var all []Keys
	for i, s := range secrets {
		raw, err := decodeSecret(s)
		if err != nil {
			return nil, fmt.Errorf("secret %d %w: make one with caddy groupcache keygen", i+1, err)
		}
		k, err := deriveKeys(raw, cluster)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(other Keys) bool { return other.ID == k.ID }) {
			all = append(all, k)
		}
	}
	if len(all) > maxSecrets {
		return nil, fmt.Errorf("%d secrets are too many: at most %d", len(all), maxSecrets)
	}
	return all, nil
}

// IsSecret reports whether a text is one of the cluster's secrets, however it is written.
func (c *Cluster) IsSecret(text string) bool {
	is, err := ReadSecrets(c.Name, []string{text})
	return err == nil && len(is) == 1 && slices.ContainsFunc(c.Keys, func(k Keys) bool { return k.ID == is[0].ID })
}

// PeerSecrets returns the secrets for an Identity.
func PeerSecrets(keys []Keys) []peer.Secret {
	var secrets []peer.Secret
	for _, k := range keys {
		secrets = append(secrets, k.Peers)
	}
	return secrets
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
	case len(strings.Fields(s)) > 1:
		return nil, fmt.Errorf("has %d lines or words, and is to be one: give the option secret each of several secrets by itself", len(strings.Fields(s)))
	case err != nil:
		return nil, fmt.Errorf("is not base64 of %d or more random bytes", MinSecret)
	case len(raw) < MinSecret:
		return nil, fmt.Errorf("is too short, %d bytes: it must be %d or more random bytes in base64", len(raw), MinSecret)
	case s == strings.ToLower(s), s == strings.ToUpper(s), predictable(raw):
		return nil, fmt.Errorf("does not look random: it must be %d or more random bytes in base64", MinSecret)
	}
	return raw, nil
}

// predictable reports bytes that no generator of random bytes makes: fewer than 16
// different ones among the first 32, or nothing but printable characters,
// which is a passphrase in base64. The chance that 32 random bytes
// look like that, or that their base64 has letters of one case only (it is hex,
// or a passphrase as it is), is less than one in 2^30.
func predictable(raw []byte) bool {
	seen := make(map[byte]bool)
	printable := true
	for _, b := range raw[:MinSecret] {
		seen[b] = true
	}
	for _, b := range raw {
		printable = printable && (' ' <= b && b <= '~' || b == '\n' || b == '\r' || b == '\t')
	}
	return len(seen) < 16 || printable
}
