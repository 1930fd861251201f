package gossip

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func FuzzNodeMeta(f *testing.F) {
	for _, seed := range []string{
		"", "\x01", "\x01a:1", "\x01[::1]:7947", "\x02later:1", "\x01a:0", "\x01a:99999", "\x01:1", "\x01[::]:1", "\x01[fe80::1%lo]:1",
		"\x01\xff:1", "\x01a b:1", "\x01a:+1", "\x01" + strings.Repeat("a", 511),
		"\x01a:1\x00", "\x01a:1\x0012345678", "\x01a:1\x0012345678abcdef", "\x01a:1\x0012345678abcdefghijkl", "\x01a:1\x0012345678abc",
		"\x01a:1\x0012345678" + strings.Repeat("abcdef", maxSecrets+1), "\x01a:1\x00" + strings.Repeat("\x00", 14),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, meta []byte) {
		n := decodeMeta(meta)
		peers := n.peers
		if len(meta) > 0 && n.version != meta[0] {
			t.Errorf("version %d", n.version)
		}
		if n.leaving && peers != "" {
			t.Errorf("leaving with address %q", peers)
		}
		if peers == "" {
			return
		}
		if !validPeerAddr(peers) || !bytes.Equal(n.encode(), meta) || len(meta) > memberlist.MetaMaxSize {
			t.Errorf("%q is decoded to %q", meta, peers)
		}
		if _, err := net.ResolveTCPAddr("tcp", "127.0.0.1:"+peers[strings.LastIndexByte(peers, ':')+1:]); err != nil {
			t.Errorf("%q: %v", peers, err)
		}
	})
}
