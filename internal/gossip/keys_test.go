package gossip

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

func TestEachPurposeHasAKeyOfItsOwn(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	k, err := deriveKeys(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	again, _ := deriveKeys(secret, "")
	other, _ := deriveKeys(bytes.Repeat([]byte{8}, 32), "")
	// What nodes of two versions derive must be the same: these never change.
	for name, test := range map[string]struct {
		key, again, other []byte
		want              string
	}{
		"id":      {k.ID[:], again.ID[:], other.ID[:], "e468d893c580"},
		"packets": {k.packets, again.packets, other.packets, "2e891d435dc72ff0457da7128f07febfafecc8963788de8cd44a8351c94996f4"},
		"peers":   {k.Peers.Seed, again.Peers.Seed, other.Peers.Seed, "f2431eaeadf9147417e600dba4e2d655a7e735121932ca56325a2153b5d3ed13"},
	} {
		if got := hex.EncodeToString(test.key); got != test.want {
			t.Errorf("%s is %s", name, got)
		}
		if !bytes.Equal(test.key, test.again) || bytes.Equal(test.key, test.other) {
			t.Errorf("%s does not follow from the secret", name)
		}
	}
	if k.Peers.ID != hex.EncodeToString(k.ID[:]) {
		t.Errorf("the id is %s for peers", k.Peers.ID)
	}
}

func TestSecrets(t *testing.T) {
	raw := make([]byte, 64)
	_, _ = rand.Read(raw)
	raw[0], raw[1], raw[2] = 0xfb, 0xff, 0xfe // so that the alphabets differ
	std, url := base64.StdEncoding.EncodeToString(raw[:32]), base64.URLEncoding.EncodeToString(raw[:32])
	for _, good := range []string{
		std, url, strings.TrimRight(std, "="), strings.TrimRight(url, "="), std + "\n",
		base64.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw[:33]),
	} {
		if keys, err := ReadSecrets("", []string{good}); err != nil || len(keys) != 1 {
			t.Errorf("%q: %v", good, err)
		}
	}
	if keys, err := ReadSecrets("", []string{std, url}); err != nil || len(keys) != 1 {
		t.Errorf("one secret in two alphabets: %d keys, %v", len(keys), err)
	}
	passphrase := "Correct horse battery staple, and one more"
	for name, bad := range map[string]string{
		"nothing":                    "",
		"31 bytes":                   base64.StdEncoding.EncodeToString(raw[:31]),
		"a passphrase":               passphrase,
		"a passphrase in base64":     base64.StdEncoding.EncodeToString([]byte(passphrase)),
		"a passphrase without space": "correcthorsebatterystaplecorrecthorsebatterystaple",
		"hex":                        hex.EncodeToString(raw[:32]),
		"zeros":                      base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"one byte again and again":   base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xa5}, 40)),
		"both alphabets":             "-/" + std[2:],
		"two lines":                  std[:20] + "\n" + std[20:],
		"a quote":                    `"` + std + `"`,
		"spare bits":                 std[:42] + "B=",
	} {
		_, err := ReadSecrets("", []string{std, bad})
		if err == nil || !strings.Contains(err.Error(), "secret 2 ") || !strings.Contains(err.Error(), "caddy groupcache keygen") {
			t.Errorf("%s: %v", name, err)
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%s: the error shows it: %v", name, err)
		}
	}
	var many []string
	for range maxSecrets + 1 {
		_, _ = rand.Read(raw)
		many = append(many, base64.StdEncoding.EncodeToString(raw))
	}
	if _, err := ReadSecrets("", many); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too many: %v", err)
	}
}
