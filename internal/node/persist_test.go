package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestPurgeOfANodeThatStops: requests may still run when a node has written its file, or while
// it does. What they purge does not come back with the next process.
func TestPurgeOfANodeThatStops(t *testing.T) {
	everything := []store.Selector{{Kind: store.All}}
	for name, purge := range map[string]func(n *Node){
		"a purge": func(n *Node) {
			n.Purger.Everywhere([]store.Purge{{ID: store.NewPurgeID(), Selectors: everything}})
		},
		"a change": func(n *Node) {
			n.Purger.Invalidate(store.NewPurgeID(), n.Store.Namespace("default"), everything, time.Second)
		},
	} {
		for when, amid := range map[string]bool{"while it writes": true, "afterwards": false} {
			t.Run(name+" "+when, func(t *testing.T) {
				n := newLone(t)
				p := NewPersistence(n, t.TempDir())
				if err := p.Prepare(); err != nil {
					t.Fatal(err)
				}
				defer p.Release()
				n.Store.Commit(n.Store.Namespace("default"), store.Key{1}, newEntry(5, 0), []byte("hello"))
				if amid {
					p.Keys = func() [][]byte { // which is asked for once the file tells what it was compared with
						purge(n)
						return nil
					}
				}
				err := p.Save(false)
				if !amid {
					if err != nil {
						t.Fatal(err)
					}
					purge(n)
				}
				if _, err := os.Stat(filepath.Join(p.Dir, SavedName)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the file is there for the next process: %v", err)
				}
			})
		}
	}
}
