package caddygroupcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A life is one process of a node that persists, without the process.
type life struct {
	*process
	h *Handler
}

func newLife(t *testing.T, dir string) life {
	t.Helper()
	p := &process{node: newLoneNode(t)}
	p.persist = node.NewPersistence(p.node, dir)
	if err := p.persist.Prepare(); err != nil {
		t.Fatal(err)
	}
	return life{p, newHandler(t, p.node, nil)}
}

func (l life) saves(t *testing.T) {
	t.Helper()
	if err := l.persist.Save(false); err != nil {
		t.Fatal(err)
	}
	l.persist.Release()
}

// restores returns how many entries or chunks, or files, met each fate.
func (l life) restores(t *testing.T) (results map[string]int64) {
	t.Helper()
	if file, _ := l.persist.Take(); file != nil {
		l.persist.Restore(file, false)
	}
	l.persist.Release()
	results = make(map[string]int64)
	for r, name := range node.RestoreResultNames {
		if n := l.persist.Results[r].Load(); n > 0 {
			results[name] = n
		}
	}
	left, err := os.ReadDir(l.persist.Dir)
	if err != nil || len(left) != 1 { // the lock
		t.Errorf("left in the directory: %v, %v", left, err)
	}
	return results
}

func wantResults(t *testing.T, got map[string]int64, want string) {
	t.Helper()
	if fmt.Sprint(got) != "map["+want+"]" {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestStoredResponsesSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		before := newLife(t, dir)
		var calls atomic.Int64
		small := fixed(&calls, "small", "Cache-Control", "max-age=100", "Vary", "X-A")
		empty := fixed(&calls, "", "Cache-Control", "max-age=100")
		medium := &file{body: randomBody(5000), length: true}
		large := &file{body: randomBody(3<<20 + 100), length: true}
		for _, a := range []string{"1", "2"} {
			do(before.h, small, request(t.Context(), "/small", "X-A", a))
		}
		do(before.h, empty, request(t.Context(), "/empty"))
		getLarge(t, before.h, medium, "/medium")
		getLarge(t, before.h, large, "/large")
		time.Sleep(10 * time.Second)
		before.saves(t)
		if info, err := os.Stat(filepath.Join(dir, node.SavedName)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		time.Sleep(20 * time.Second)

		after := newLife(t, dir)
		wantResults(t, after.restores(t), "restored:8") // five entries, three chunks
		calls.Store(0)
		for _, a := range []string{"1", "2"} {
			w := do(after.h, small, request(t.Context(), "/small", "X-A", a))
			wantStatus(t, w, "hit; ttl=70; detail=local")
			wantBody(t, "small", w, []byte("small"))
		}
		wantStatus(t, do(after.h, empty, request(t.Context(), "/empty")), "hit")
		wantBody(t, "medium", getLarge(t, after.h, medium, "/medium"), medium.body)
		wantBody(t, "large", getLarge(t, after.h, large, "/large"), large.body)
		if n := calls.Load() + int64(len(medium.requests())+len(large.requests())); n != 2 {
			t.Errorf("%d requests to the upstream", n)
		}
		time.Sleep(71 * time.Second)
		wantStatus(t, do(after.h, small, request(t.Context(), "/small", "X-A", "1")), "fwd=stale")

		wantResults(t, newLife(t, dir).restores(t), "") // it counts once
	})
}

func TestWhatWasPurgedIsNotRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		before := newLife(t, dir)
		var calls atomic.Int64
		page := func(l life, path string) {
			w := do(l.h, fixed(&calls, path, "Cache-Control", "max-age=100", "Surrogate-Key", path[1:]), request(t.Context(), path))
			wantBody(t, path, w, []byte(path))
		}
		purge := func(n *node.Node, soft bool, kind store.Kind, value string) store.Purge {
			p := store.Purge{ID: store.NewPurgeID(), Soft: soft, Selectors: []store.Selector{{Kind: kind, Value: value}}}
			node.Owner{Node: n}.Purge([]store.Purge{p}, nil)
			return p
		}
		page(before, "/old")
		time.Sleep(time.Second)
		old := purge(before.node, false, store.All, "")
		time.Sleep(time.Second)
		for _, path := range []string{"/a", "/b", "/c", "/d"} {
			page(before, path)
		}
		time.Sleep(time.Second)
		purge(before.node, false, store.Tag, "a")
		before.saves(t)
		time.Sleep(time.Second)

		after := newLife(t, dir)
		node.Owner{Node: after.node}.Purge([]store.Purge{old}, nil) // another node tells of it, and of later ones
		purge(after.node, false, store.Tag, "b")
		purge(after.node, true, store.URL, "http://example.com/c")
		time.Sleep(time.Millisecond) // of two things at one time, the purge is taken to be later
		wantResults(t, after.restores(t), "outdated:2 restored:1")
		calls.Store(0)
		for i, path := range []string{"/d", "/a", "/b", "/c", "/old"} {
			if page(after, path); calls.Load() != int64(i) {
				t.Errorf("%s: %d fetches", path, calls.Load())
			}
		}
		time.Sleep(time.Second)
		purge(after.node, false, store.Tag, "d") // as usual
		if page(after, "/d"); calls.Load() != 5 {
			t.Error("a purge after the restart does not count")
		}
	})
}

// TestEachKindOfPurgeMeetsWhatWasSaved: other nodes tell a process that starts of each
// kind of purge that there was while it was away.
func TestEachKindOfPurgeMeetsWhatWasSaved(t *testing.T) {
	const url = "http://example.com/page"
	values := map[store.Kind]string{
		store.All: "", store.URL: url, store.Prefix: "http://example.com/p", store.Host: "example.com",
		store.Tag: "tag", store.Group: store.GroupOf(url, "group"),
	}
	for _, kind := range store.Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := newLife(t, t.TempDir())
				var calls atomic.Int64
				page := fixed(&calls, "page", "Cache-Control", "max-age=100", "Surrogate-Key", "tag", "Cache-Groups", `"group"`)
				r := request(t.Context(), "/page")
				key := ownKeysOf(before.h, r, r.RequestURI)[0]
				do(before.h, page, r)
				before.saves(t)
				time.Sleep(time.Second)

				after := newLife(t, before.persist.Dir)
				selector := store.Selector{Kind: kind, Value: values[kind]}
				if kind == store.OfKey {
					selector = node.SelectorOf(key)
				}
				node.Owner{Node: after.node}.Purge([]store.Purge{{ID: store.NewPurgeID(), Selectors: []store.Selector{selector}}}, nil)
				time.Sleep(time.Millisecond) // of two things at one time, the purge is taken to be later
				wantResults(t, after.restores(t), "outdated:1")
			})
		})
	}
}

func TestFilesThatCannotBeJudgedAreNotRead(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*node.SavedHead, life)
		want   string
	}{
		"as it is":                   {func(*node.SavedHead, life) {}, "restored:1"},
		"the clock was set back":     {func(h *node.SavedHead, _ life) { h.Written = time.Now().Add(time.Minute) }, "unverified:1"},
		"written in a cluster":       {func(h *node.SavedHead, _ life) { h.Marker = 1 }, "unverified:1"},
		"purges are forgotten":       {func(_ *node.SavedHead, l life) { l.node.Purger.Log.Dropped(time.Now()) }, "unverified:1"},
		"those of before are":        {func(_ *node.SavedHead, l life) { l.node.Purger.Log.Dropped(time.Now().Add(-time.Hour)) }, "restored:1"},
		"they may be of right after": {func(_ *node.SavedHead, l life) { l.node.Purger.Log.Dropped(time.Now().Add(-5 * time.Second)) }, "unverified:1"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t, t.TempDir())
			head := node.SavedHead{Written: time.Now()}
			test.change(&head, l)
			writeSaved(t, l.persist.Dir, head)
			wantResults(t, l.restores(t), test.want)
		})
	}
}

// writeSaved writes a file of one entry.
func writeSaved(t testing.TB, dir string, head node.SavedHead) {
	t.Helper()
	w, err := node.CreateSaved(dir, head, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &store.Entry{Status: 200, Size: 1000, Generation: 7}
	e.SetLabels("http://example.com/", nil, nil)
	body := randomBody(1000)
	e.Digest = store.Digest(body)
	if err := w.Finish(w.Entry("default", store.Key{1}, e, body)); err != nil {
		t.Fatal(err)
	}
}

// TestOneThatRemembersVouches: a node that has not heard the marker, because it
// was started since, can't tell what was purged before.
func TestOneThatRemembersVouches(t *testing.T) {
	c := newCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	kept := node.NewPersistence(c.nodes[0], "")
	marker := kept.LeaveMarker()
	meanwhile := store.Purge{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.Tag, Value: "x"}}}
	node.Owner{Node: c.nodes[1]}.Purge([]store.Purge{meanwhile}, nil) // which node 0 has not heard of
	if !kept.Vouched(ctx, marker) || !c.nodes[0].Purger.Log.Knows(meanwhile.ID) {
		t.Error("nobody has vouched, or not told all")
	}
	gone, cancelGone := context.WithTimeout(t.Context(), 3*node.RetryVouch)
	defer cancelGone()
	if kept.Vouched(gone, store.NewPurgeID()) {
		t.Error("somebody has vouched for a marker that nobody has")
	}
}

// TestDamagedFile: whatever happens to a file, what is read of it is what was
// written, and what is not is counted.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	before := newLife(t, dir)
	up := &file{body: randomBody(1500), length: true}
	const pages = 20
	for i := range pages {
		getLarge(t, before.h, up, fmt.Sprintf("/%d", i))
	}
	before.saves(t)
	good, err := os.ReadFile(filepath.Join(dir, node.SavedName))
	if err != nil {
		t.Fatal(err)
	}
	random := seed.Of(t).Rand()
	for i := range 200 {
		b := bytes.Clone(good)
		switch at := random.IntN(len(b)); i % 3 {
		case 0:
			b[at] ^= 1 << random.IntN(8)
		case 1:
			b = b[:at]
		default:
			b = append(b[:at:at], b[at+1:]...)
		}
		if err := os.WriteFile(filepath.Join(dir, node.SavedName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		after := newLife(t, dir)
		results := after.restores(t)
		if results["restored"] == pages && results["unreadable"] == 0 || results["restored"] > pages {
			t.Errorf("damage %d was not noticed: %v", i, results)
		}
		for k := range pages {
			wantBody(t, "damaged", getLarge(t, after.h, up, fmt.Sprintf("/%d", k)), up.body)
		}
	}
}

func TestDirectoryThatCannotBeWrittenTo(t *testing.T) {
	occupied := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(occupied, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := (&node.Persistence{Dir: filepath.Join(occupied, "dir")}).Prepare()
	if err == nil || !strings.Contains(err.Error(), "persist") || !strings.Contains(err.Error(), occupied) {
		t.Errorf("the error is %v", err)
	}
}

func FuzzSavedFile(f *testing.F) {
	dir := f.TempDir()
	writeSaved(f, dir, node.SavedHead{Written: time.Now(), Marker: 1, Known: []store.PurgeID{1, 2}})
	good, err := os.ReadFile(filepath.Join(dir, node.SavedName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-9])
	f.Add([]byte(node.SavedMagic + "\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, _, err := node.NewSavedReader(bytes.NewReader(b), nil)
		if err == nil {
			for {
				record, err := in.Next()
				if err != nil && !errors.Is(err, node.ErrUnreadable) {
					if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Error(err)
					}
					break
				}
				_, _ = peer.DecodeSaved(record, time.Now())
			}
			if len(in.Record) > peer.MaxSaved {
				t.Errorf("%d bytes for a record", len(in.Record))
			}
		}
		_, _ = peer.DecodeSaved(b, time.Now()) // as if the checksum were right
	})
}
