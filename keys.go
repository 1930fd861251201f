package caddygroupcache

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// deriveKey returns 32 bytes for one purpose from a secret (HKDF-SHA256,
// RFC 5869). The label keeps purposes apart.
func deriveKey(secret []byte, label string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, label, 32)
}
