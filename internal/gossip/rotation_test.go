package gossip

import (
	"strings"
	"testing"
	"time"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", keyed(t, "", "1"))
	b := startNode(t, "b", keyed(t, a.Addr(), "1"))
	waitRing(t, "a b", a, b)
	if n := a.Refused(); n != 0 {
		t.Errorf("%d refused before there were outsiders", n)
	}
	wrong := startNode(t, "wrong", keyed(t, a.Addr(), "2"))
	waitFor(t, "the wrong key to be refused", func() bool { return a.Refused() > 0 })
	refused := a.Refused()
	plain := startNode(t, "plain", seeds(a.Addr()))
	waitFor(t, "plaintext to be refused", func() bool { return a.Refused() > refused })
	refused = a.Refused()
	packet := labeled([]byte{0, 1, 2, 3}) // plaintext
	send(t, "udp", a.Addr(), packet)
	waitFor(t, "many more to be refused", func() bool { return a.Refused() > refused+5 })
	waitRing(t, "a b", a, b)
	waitRing(t, "wrong", wrong)
	waitRing(t, "plain", plain)
	if got := len(wrong.Members()); got != 1 {
		t.Errorf("an outsider has learned of %d members", got)
	}
	wrong.kill()
	plain.kill()

	for _, letters := range []string{"21", "2"} {
		for _, n := range []*node{a, b} {
			n.rekey(t, letters)
		}
	}
	c := startNode(t, "c", keyed(t, a.Addr(), "2"))
	waitRing(t, "a b c", a, b, c)
	old := startNode(t, "old", keyed(t, a.Addr(), "1"))
	refused = a.Refused()
	waitFor(t, "the old key to be refused", func() bool { return a.Refused() > refused })
	waitRing(t, "a b c", a, b, c)
	waitRing(t, "old", old)

	short := keysOf(t, "32")
	short[1].packets = []byte("short")
	for _, tc := range []struct {
		node *node
		keys []Keys
		want string
	}{
		{a, nil, "restart"},
		{a, short, "key 2 of 2"},
		{plain, keysOf(t, "1"), "restart"},
		{plain, nil, ""},
	} {
		err := tc.node.SetKeys(tc.keys)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("SetKeys(%d keys): %v, want %q", len(tc.keys), err, tc.want)
		}
	}
}

// watchRings notes every ring of some nodes that lacks one of them.
func watchRings(t *testing.T, nodes ...*node) (stop func()) {
	done, watching := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watching)
		for {
			for _, n := range nodes {
				for _, m := range n.Members() {
					if !m.Present() {
						t.Errorf("%s is %s in the eyes of %s", m.Name, m.State, n.cfg.Name)
						return
					}
				}
			}
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-watching }
}

func TestGossipKeysRotateNodeAfterNode(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", keyed(t, "", "o"))
	b := startNode(t, "b", keyed(t, a.Addr(), "o"))
	c := startNode(t, "c", keyed(t, a.Addr(), "o"))
	nodes := []*node{a, b, c}
	waitRing(t, "a b c", nodes...)
	stop := watchRings(t, nodes...)
	for i, n := range nodes {
		n.rekey(t, "no")
		for _, other := range nodes[i+1:] {
			if !n.sealsWith(t, "o", other) {
				t.Errorf("%s seals with a key that %s lacks", n.cfg.Name, other.cfg.Name)
			}
		}
	}
	for _, n := range nodes {
		for _, other := range nodes {
			waitFor(t, n.cfg.Name+" to seal with the new key", func() bool { return n.sealsWith(t, "n", other) })
		}
	}
	refused := a.Refused() + b.Refused() + c.Refused()
	for _, n := range nodes {
		n.rekey(t, "n")
	}
	d := startNode(t, "d", keyed(t, a.Addr(), "n"))
	waitRing(t, "a b c d", a, b, c, d)
	stop()
	// Only what was under way when the old key went.
	if now := a.Refused() + b.Refused() + c.Refused(); now > refused+5 {
		t.Errorf("%d packets of members were refused", now-refused)
	}
}

// A rotation by restarts, or one that a node slept through.
func TestNodesJoinAmidARotation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ a, b, joiner string }{
		{"o", "o", "no"},
		{"n", "n", "no"},
		{"n", "n", "on"},
		{"no", "o", "no"},
		{"no", "no", "o"},
		{"no", "n", "no"},
		{"no", "no", "n"},
	} {
		t.Run(test.a+","+test.b+"+"+test.joiner, func(t *testing.T) {
			t.Parallel()
			a := startNode(t, "a", keyed(t, "", test.a))
			b := startNode(t, "b", keyed(t, a.Addr(), test.b))
			waitRing(t, "a b", a, b)
			c := startNode(t, "c", keyed(t, a.Addr(), test.joiner))
			waitRing(t, "a b c", a, b, c)
		})
	}
}
