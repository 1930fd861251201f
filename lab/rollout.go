//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Roll-outs: nodes are restarted one after the other, or others take their places.

const (
	keptPages = 600
	keptMost  = keptPages * 5 / 100 // that may be fetched anew
	noWait    = time.Second         // for some of a body, longer than a download may stand still
)

// rollOut restarts nodes, or replaces them, under the load. Meanwhile each node has a client
// of server-sent events, one that downloads slowly what is stored, and one that downloads
// what comes in slowly. Nobody asks for the kept pages: the nodes have them by themselves
// then.
func (t *trial) rollOut(replace func() error) error {
	ask := func(nodes []*node) {
		var all sync.WaitGroup
		for worker := range 4 {
			all.Go(func() {
				for i := worker; i < keptPages; i += 4 {
					t.load.request(nodes[rand.IntN(len(nodes))], fmt.Sprintf("/%s/%d", kept, i))
				}
			})
		}
		all.Wait()
	}
	ask(t.members())
	before, _ := t.origin.fetched(kept)
	t.origin.rate.Store(largeBody / 20)
	ctx, over := context.WithCancel(context.Background())
	s := &streams{t: t, ctx: ctx}
	for i, n := range t.nodes {
		s.all.Go(func() { s.listen(n) })
		s.all.Go(func() { s.download(n, fmt.Sprintf("/%s/%d", large, i%2), largeBody/15) })
		s.all.Go(func() { s.download(n, fmt.Sprintf("/%s/%d", drip, i%2), 0) })
	}
	begun := time.Now()
	err := replace()
	took := time.Since(begun)
	over()
	s.all.Wait()
	if err != nil {
		return err
	}
	if s.downloads == 0 || s.events == 0 {
		return errors.New("no client had a download or events")
	}
	ask(t.members())
	after, _ := t.origin.fetched(kept)
	t.note("%v: %d of %d pages that nobody asked for meanwhile were fetched anew; %d downloads and %d events without a fault; no download of what is stored stood still longer than %v, none of what came in slowly longer than %v",
		took.Round(time.Second), after-before, keptPages, s.downloads, s.events, s.stored.Round(time.Millisecond), s.comingIn.Round(time.Millisecond))
	if after-before > keptMost {
		t.fail("%d of %d pages fetched anew, more than %d", after-before, keptPages, keptMost)
	}
	if s.stored > noWait {
		t.fail("a download of what is stored stood still for %v", s.stored)
	}
	return nil
}

// streams are clients with long responses, of each node as long as that is there.
type streams struct {
	t   *trial
	ctx context.Context
	all sync.WaitGroup

	mu        sync.Mutex // guards below
	downloads int
	events    int

	// The longest time that a download stood still. One that was read along by way of a node
	// whose grace_period was over goes on when another node has fetched as much again, and
	// compared it: no tag is proof enough that the rest is of the same body.
	stored, comingIn time.Duration
}

// whileThere calls f again and again, until the roll-out is over.
func (s *streams) whileThere(n *node, f func()) {
	for s.ctx.Err() == nil {
		if n.absent.Load() {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		f()
	}
}

func (s *streams) download(n *node, path string, rate int) {
	s.whileThere(n, func() {
		epoch := n.epoch.Load()
		d := s.t.load.downloads(n, path, "", rate)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n.epoch.Load() != epoch {
			return
		}
		s.downloads++
		if kindOf(path) == drip {
			s.comingIn = max(s.comingIn, d.silence)
		} else {
			s.stored = max(s.stored, d.silence)
		}
	})
}

// listen has a client read a node's events, which nothing but the end of the node may cut.
func (s *streams) listen(n *node) {
	s.whileThere(n, func() {
		epoch := n.epoch.Load()
		got, err := s.read(n)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events += got
		if s.ctx.Err() == nil && n.epoch.Load() == epoch {
			s.t.fail("the events of %s ended: %v", n.Name, err)
		}
	})
}

// read returns how many events a client got.
func (s *streams) read(n *node) (got int, err error) {
	r, err := n.asking("/" + events + "/1")
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: n.clients.Transport}).Do(r.WithContext(s.ctx))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	event := make([]byte, len("data: news\n\n"))
	for {
		if _, err := io.ReadFull(resp.Body, event); err != nil {
			return got, err
		}
		got++
	}
}

// awaitWhole waits until all nodes that run see each other.
func (t *trial) awaitWhole() error {
	return await(backWithin, "all nodes see each other", t.whole)
}

// restartEach restarts one node after the other, as soon as the last one is a member again.
func restartEach(t *trial) error {
	return t.rollOut(func() error {
		for _, n := range t.nodes {
			if err := errors.Join(n.stop(), n.again(), t.awaitWhole()); err != nil {
				return err
			}
		}
		return nil
	})
}

// surge starts a new node before it stops an old one, for each of them.
func surge(t *trial) error {
	return t.rollOut(func() error {
		for i, n := range t.first() {
			if err := errors.Join(t.nodes[t.size()+i].again(), t.awaitWhole(), n.stop(), t.awaitWhole()); err != nil {
				return err
			}
		}
		return nil
	})
}

// blueGreen starts as many new nodes as there are, and then stops the old ones.
func blueGreen(t *trial) error {
	return t.rollOut(func() error {
		if err := errors.Join(together(t.nodes[t.size():], (*node).again), t.awaitWhole()); err != nil {
			return err
		}
		for _, n := range t.first() {
			if err := n.stop(); err != nil {
				return err
			}
		}
		return t.awaitWhole()
	})
}

// restartAndRest restarts a node, and nobody asks for anything for some minutes.
func restartAndRest(t *trial) error {
	return t.rollOut(func() error {
		n := t.nodes[1]
		if err := errors.Join(n.stop(), n.again(), t.awaitWhole()); err != nil {
			return err
		}
		t.load.rests.Store(true)
		time.Sleep(t.lab.rest)
		t.load.rests.Store(false)
		return nil
	})
}
