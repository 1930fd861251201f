//go:build unix

package caddygroupcache

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// readSaved reads a file to its end, and reports whether all of it is what was
// written.
func readSaved(b []byte, keys ...[]byte) bool {
	in, _, err := node.NewSavedReader(bytes.NewReader(b), keys)
	for err == nil {
		_, err = in.Next()
	}
	return err == io.EOF
}

// No byte of the file can change, no record can go, come twice or change places.
func TestEachByteOfASavedFileCounts(t *testing.T) {
	dir := t.TempDir()
	writeSaved(t, dir, node.SavedHead{Written: time.Now(), Known: []store.PurgeID{1}})
	good, err := os.ReadFile(filepath.Join(dir, node.SavedName))
	if err != nil {
		t.Fatal(err)
	}
	if !readSaved(good) {
		t.Fatal("the file as it is")
	}
	for at := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[at] ^= 1 << bit
			if readSaved(b) {
				t.Errorf("bit %d of byte %d of %d can flip", bit, at, len(b))
			}
		}
		if readSaved(good[:at]) {
			t.Errorf("it can end after %d bytes", at)
		}
	}
}

// A file is read only by a process that has the secret of the one that wrote it.
func TestSavedFileIsTheClusters(t *testing.T) {
	a, b := []byte("one"), []byte("another")
	written := func(keys ...[]byte) []byte {
		dir := t.TempDir()
		w, err := node.CreateSaved(dir, node.SavedHead{Written: time.Now()}, keys)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(nil); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(dir, node.SavedName))
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	for what, test := range map[string]struct {
		file []byte
		keys [][]byte
		good bool
	}{
		"the same":      {written(a), [][]byte{a}, true},
		"rotated":       {written(a), [][]byte{b, a}, true},
		"the first":     {written(b, a), [][]byte{b}, true},
		"only another":  {written(a), [][]byte{b}, false},
		"no secret now": {written(a), nil, false},
		"none then":     {written(), [][]byte{a}, false},
		"never any":     {written(), nil, true},
	} {
		if readSaved(test.file, test.keys...) != test.good {
			t.Errorf("%s: read: %v", what, !test.good)
		}
	}
}

// A process that stops before it has read all keeps the rest, but for what it has
// purged itself.
func TestStopAmidReadingKeepsTheRest(t *testing.T) {
	const pages = 100
	for round := range 10 {
		dir := t.TempDir()
		before := newLife(t, dir)
		up := &file{body: randomBody(20_000), length: true}
		for i := range pages {
			getLarge(t, before.h, up, fmt.Sprintf("/%d", i))
		}
		before.saves(t)

		short := newLife(t, dir)
		taken, err := short.persist.Take()
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			short.persist.Restore(taken, false)
		}()
		kept := pages
		if round%2 == 1 {
			kept--
			time.Sleep(time.Millisecond) // of two things at one time, the purge is taken to be later
			url := []store.Selector{{Kind: store.URL, Value: "http://example.com/7"}}
			short.node.Purger.Everywhere([]store.Purge{{ID: store.NewPurgeID(), Selectors: url}})
		}
		short.saves(t)
		<-read

		got := newLife(t, dir).restores(t)
		if got["restored"] != int64(kept) || got["unreadable"] > 0 {
			t.Errorf("round %d: %v, not %d", round, got, kept)
		}
	}
}

func TestFilesOfOthersAreNotRead(t *testing.T) {
	for what, change := range map[string]func(name string) error{
		"another user's":           func(name string) error { return os.Chown(name, 12345, -1) },
		"writable for others":      func(name string) error { return os.Chmod(name, 0o622) },
		"a link":                   func(name string) error { return os.Symlink(name+"-elsewhere", name) },
		"a directory in its place": func(name string) error { return os.Mkdir(name, 0o700) },
	} {
		l := newLife(t, t.TempDir())
		writeSaved(t, l.persist.Dir, node.SavedHead{Written: time.Now()})
		name := filepath.Join(l.persist.Dir, node.SavedName)
		if what[0] == 'a' && what != "another user's" {
			if err := os.Rename(name, name+"-elsewhere"); err != nil {
				t.Fatal(err)
			}
		}
		if err := change(name); os.IsPermission(err) {
			t.Logf("%s: not tried: %v", what, err)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if taken, err := l.persist.Take(); taken != nil || err == nil {
			t.Errorf("%s: it is read", what)
		}
	}
}

// TestLockOfADirectoryWritesOverNothing: who can write to the directory may have given the
// name of the lock to something else of Caddy's own.
func TestLockOfADirectoryWritesOverNothing(t *testing.T) {
	for name, plant := range map[string]func(other, lock string) error{"another name": os.Link, "a link": os.Symlink} {
		dir := t.TempDir()
		other := filepath.Join(dir, "other")
		if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := plant(other, filepath.Join(dir, "cache.lock")); err != nil {
			t.Fatal(err)
		}
		p := node.NewPersistence(newLoneNode(t), dir)
		if p.Prepare() == nil {
			t.Errorf("%s: the directory is taken", name)
			p.Release()
		}
		if b, err := os.ReadFile(other); err != nil || string(b) != "precious" {
			t.Errorf("%s: it was written over: %q, %v", name, b, err)
		}
	}
}

func TestDirectoryOfAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	one := newLife(t, dir)
	other := node.NewPersistence(newLoneNode(t), dir)
	if err := other.Prepare(); err == nil {
		t.Error("two have one directory")
	} else {
		t.Log(err)
	}
	one.persist.Release()
	if err := other.Prepare(); err != nil {
		t.Error(err)
	}
	other.Release()
}
