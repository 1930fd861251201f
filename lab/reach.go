//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Members that can't be reached, or that others can't use for long.

const (
	unreachableFor = 30 * time.Second // before it has to cost nothing more
	measureFor     = time.Minute
)

// A measure is what clients and origin saw for some time.
type measure struct {
	hits    float64 // of the requests for stable pages
	p99     time.Duration
	fetches int // but news, which depends on when purges come
}

func (m measure) String() string {
	return fmt.Sprintf("hit ratio %.4f, p99 %v, %d origin requests", m.hits, m.p99.Round(100*time.Microsecond), m.fetches)
}

// measure returns what there is in the next while.
func (t *trial) measure(l *load) (m measure) {
	fetched := func() int {
		all := 0
		for _, kind := range []string{stable, short, cold} {
			fetches, _ := t.origin.fetched(kind)
			all += fetches
		}
		return all
	}
	l.mu.Lock()
	first := len(l.took)
	l.mu.Unlock()
	start, before := time.Now(), fetched()
	time.Sleep(measureFor)
	m.hits, m.fetches = l.ratio(start.Add(time.Second)), fetched()-before
	l.mu.Lock()
	defer l.mu.Unlock()
	took := slices.Sorted(slices.Values(l.took[first:]))
	m.p99 = took[len(took)*99/100]
	return m
}

// worse says what is more than 5 % worse than before and after, which differ by what
// chance and the machine do.
func (m measure) worse(before, after measure) (what []string) {
	fetches := float64(before.fetches+after.fetches) / 2
	if m.hits < 0.95*min(before.hits, after.hits) {
		what = append(what, "hit ratio")
	}
	if float64(m.p99) > 1.05*float64(max(before.p99, after.p99)) {
		what = append(what, "p99")
	}
	if float64(m.fetches) > 1.05*fetches+3*math.Sqrt(fetches) {
		what = append(what, "origin requests")
	}
	return what
}

// neverReached has a third node come that reaches the two others, and that they can't
// call, and go again.
func neverReached(t *trial) error {
	before := t.measure(t.load)
	third := t.nodes[2]
	t.net.setOneWay(link{noCalls: true}, []int{0, 1}, []int{2})
	if err := third.Start(); err != nil {
		return err
	}
	time.Sleep(unreachableFor)
	with := t.measure(t.load)
	third.kill()
	t.net.heal()
	time.Sleep(unreachableFor)
	after := t.measure(t.load)
	t.note("before it:  %v", before)
	t.note("with it:    %v", with)
	t.note("after it:   %v", after)
	for _, what := range with.worse(before, after) {
		t.fail("%s: more than 5 %% worse than without the member that nobody reaches", what)
	}
	return nil
}

// correctClock has a node come whose clock is two years fast, and is set right later.
func correctClock(t *trial) error {
	const wrongFor = 20 * time.Second
	n := t.nodes[t.size()]
	n.stranger = true
	n.Env = []string{"LAB_SKEW=63072000", fmt.Sprint("LAB_SKEW_UNTIL=", time.Now().Add(wrongFor).Unix())}
	right := time.Now().Add(wrongFor)
	if err := n.again(); err != nil {
		return err
	}
	time.Sleep(time.Until(right.Add(-time.Second)))
	if t.nodes[0].Sees(t.size()+1) == nil {
		t.note("it was a member although its clock was wrong")
	}
	time.Sleep(time.Until(right))
	n.stranger = false
	return nil
}
