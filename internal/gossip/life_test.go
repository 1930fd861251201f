package gossip

import "testing"

// TestMembersTellTheirLives: with secrets and without, and another one after a restart
// under the same name.
func TestMembersTellTheirLives(t *testing.T) {
	for name, configure := range map[string]func(cfg *Config){
		"without secrets": func(*Config) {},
		"with a secret":   keyed(t, "", "a"),
	} {
		t.Run(name, func(t *testing.T) {
			start := func(name string, life uint64, join ...string) *node {
				return startNode(t, name, func(cfg *Config) {
					configure(cfg)
					cfg.Life, cfg.Join = life, join
				})
			}
			a := start("a", 1)
			b := start("b", 2, a.Addr())
			none := start("none", 0, a.Addr())
			waitRing(t, "a b none", a, b, none)
			told := func(n *node, of string, life uint64) {
				waitFor(t, of+"'s life", func() bool {
					n.mu.Lock()
					defer n.mu.Unlock()
					for _, m := range n.last { // as OnChange was told
						if m.Name == of {
							return m.Life == life || life == 0 && (name == "without secrets") == (m.Life == 0)
						}
					}
					return false
				})
			}
			for _, n := range []*node{a, b, none} {
				told(n, "a", 1)
				told(n, "b", 2)
				told(n, "none", 0)
			}
			if err := b.Leave(patience); err != nil {
				t.Fatal(err)
			}
			start("b", 3, a.Addr())
			told(a, "b", 3)
		})
	}
}
