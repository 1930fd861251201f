//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A fault is what happens to a cluster.
type fault struct {
	name      string
	startWith int    // nodes; default 4
	later     int    // nodes that only the fault starts
	onNetwork bool   // its nodes have namespaces and a network of their own
	quick     bool   // in the short selection
	option    string // of the directive
	refetches float64
	prepare   func(t *trial, i int, n *node) error // before a node is started
	run       func(t *trial) error                 // returns when the fault is over, or sets healed itself
}

// How many fetches there may be of each page that all nodes had. When a node is killed, so
// is what it owned and no other node has a copy of: that is fetched once. One that is frozen or
// cut off fetches for itself.
const (
	aSecond = 0.6 // in which hits are withheld, because somebody new may know of purges
	nothing = 0.1 // on a busy machine some peer is too slow now and then
	share   = 0.5 // of a node of four, with as much again for a busy machine
	some    = 1.05
	many    = 2.05
	unfresh = 4 // a node that takes all responses for old fetches a page for each request, for 20 seconds
)

var faults = []fault{
	{name: "nothing happens", quick: true, refetches: nothing, run: func(t *trial) error {
		t.lasts(15*time.Second, time.Second)
		return nil
	}},
	{name: "graceful restart", refetches: nothing, run: func(t *trial) error {
		if err := t.nodes[1].stop(); err != nil {
			return err
		}
		t.lasts(5*time.Second, time.Second)
		return t.nodes[1].again()
	}},
	{name: "owner killed", quick: true, refetches: share, run: func(t *trial) error {
		t.nodes[1].kill()
		t.lasts(10*time.Second, 2*time.Second)
		return t.nodes[1].again()
	}},
	{name: "leader killed amid fills", quick: true, refetches: some, run: killLeader},
	{name: "stopped amid fills", quick: true, refetches: nothing, run: stopLeader},
	{name: "slow body read along", refetches: nothing, run: followSlowly},
	{name: "file changes amid downloads", quick: true, refetches: nothing, run: changeFiles},
	{name: "frozen 5 s", quick: true, refetches: some, run: func(t *trial) error { return freeze(t, 5*time.Second) }},
	{name: "frozen 30 s", refetches: some, run: func(t *trial) error { return freeze(t, 30*time.Second) }},
	{name: "frozen 2 min", refetches: some, run: func(t *trial) error { return freeze(t, 2*time.Minute) }},
	{name: "half-open connections", onNetwork: true, refetches: some, run: func(t *trial) error {
		// Like a power cut: nobody is told that the connections are gone.
		t.net.set(cut, []int{1}, []int{0, 2, 3})
		t.nodes[1].kill()
		time.Sleep(500 * time.Millisecond)
		t.net.heal()
		return t.nodes[1].again()
	}},
	{name: "silent for 20 s", onNetwork: true, refetches: many, run: func(t *trial) error {
		t.net.set(cut, []int{1}, []int{0, 2, 3})
		t.purgeVia.Store(t.nodes[0])
		time.Sleep(20 * time.Second)
		t.net.heal()
		return nil
	}},
	{name: "one-way loss", onNetwork: true, refetches: many, run: func(t *trial) error {
		t.net.setOneWay(cut, []int{1}, []int{0, 2, 3})
		t.purgeVia.Store(t.nodes[0])
		time.Sleep(20 * time.Second)
		t.net.heal()
		return nil
	}},
	{name: "one-way loss, the other way", onNetwork: true, refetches: many, run: func(t *trial) error {
		t.net.setOneWay(cut, []int{0, 2, 3}, []int{1})
		t.purgeVia.Store(t.nodes[0])
		time.Sleep(20 * time.Second)
		t.net.heal()
		return nil
	}},
	{name: "large packets lost one way", onNetwork: true, refetches: many, run: func(t *trial) error {
		t.net.setOneWay(link{largest: 1000}, []int{1}, []int{0, 2, 3})
		time.Sleep(20 * time.Second)
		t.net.heal()
		return nil
	}},
	{name: "two can't reach each other", onNetwork: true, refetches: many, run: func(t *trial) error {
		t.net.set(cut, []int{0}, []int{1})
		time.Sleep(20 * time.Second)
		t.net.heal()
		return nil
	}},
	{name: "split for 10 s", onNetwork: true, refetches: many, run: func(t *trial) error { return split(t, 10*time.Second) }},
	{name: "split for 2 min", onNetwork: true, refetches: many, run: func(t *trial) error { return split(t, 2*time.Minute) }},
	{name: "slow and lossy peer", onNetwork: true, refetches: many, run: func(t *trial) error {
		t.net.set(link{loss: 0.1, delay: 100 * time.Millisecond, jitter: 50 * time.Millisecond}, []int{1}, []int{0, 2, 3})
		time.Sleep(30 * time.Second)
		t.net.heal()
		return nil
	}},
	{name: "slow and lossy network", onNetwork: true, refetches: many, run: func(t *trial) error {
		everybody := []int{0, 1, 2, 3}
		t.net.set(link{loss: 0.05, delay: 30 * time.Millisecond, jitter: 15 * time.Millisecond}, everybody, everybody)
		time.Sleep(30 * time.Second)
		t.net.heal()
		return nil
	}},
	{name: "origin answers 500", quick: true, refetches: nothing, run: func(t *trial) error { return originIs(t, failing) }},
	{name: "origin breaks off", quick: true, refetches: nothing, run: func(t *trial) error { return originIs(t, dying) }},
	{name: "origin takes 10 s", refetches: nothing, run: func(t *trial) error { return originIs(t, tired) }},
	{name: "16 nodes join 4", later: 16, refetches: many, prepare: oneProcessor, run: func(t *trial) error {
		return together(t.nodes[4:], (*node).again)
	}},
	{name: "rolling restart of 3", startWith: 3, refetches: nothing, run: restartEach},
	{name: "rolling restart of 4", refetches: nothing, run: restartEach},
	{name: "surge", startWith: 3, later: 3, refetches: nothing, run: surge},
	{name: "blue-green", startWith: 3, later: 3, refetches: nothing, run: blueGreen},
	{name: "one restart and 10 quiet minutes", refetches: nothing, run: restartAndRest},
	{name: "all restarted", refetches: many, run: func(t *trial) error {
		if err := together(t.nodes, (*node).stop); err != nil {
			return err
		}
		return together(t.nodes, (*node).again)
	}},
	{name: "name used twice", quick: true, later: 1, refetches: some,
		prepare: func(t *trial, i int, n *node) error {
			if i == t.size() {
				n.Name, n.stranger = t.nodes[1].Name, true
			}
			return nil
		},
		run: func(t *trial) error { return visit(t, t.nodes[4]) },
	},
	{name: "a member that nobody reaches", quick: true, later: 1, refetches: aSecond,
		prepare: func(t *trial, i int, n *node) error {
			if i == t.size() {
				n.stranger = true
				n.App += "\n\t\tadvertise 127.0.0.1:1 127.0.0.1:2" // it reaches the others, as from behind NAT
			}
			return nil
		},
		run: func(t *trial) error { return visit(t, t.nodes[4]) },
	},
	{name: "one of three is never reached", startWith: 2, later: 1, onNetwork: true, refetches: many, run: neverReached,
		prepare: func(_ *trial, i int, n *node) error {
			n.stranger = i == 2
			return nil
		},
	},
	{name: "another's address advertised", quick: true, later: 1, refetches: aSecond,
		prepare: func(t *trial, i int, n *node) error {
			if i == t.size() {
				n.stranger = true
				n.App += "\n\t\tadvertise " + t.nodes[1].Gossip + " " + t.nodes[1].Peers
			}
			return nil
		},
		run: func(t *trial) error { return visit(t, t.nodes[4]) },
	},
	{name: "another cluster", quick: true, later: 1, refetches: nothing,
		prepare: func(t *trial, i int, n *node) error {
			if i == t.size() {
				n.stranger = true
				n.App += "\n\t\tcluster staging" // with the same secret and seeds
			}
			return nil
		},
		run: func(t *trial) error { return visit(t, t.nodes[4]) },
	},
	{name: "another protocol version", later: 1, refetches: nothing,
		prepare: func(t *trial, i int, n *node) (err error) {
			if i == t.size() {
				n.stranger = true
				n.Binary, err = t.lab.buildVersion()
			}
			return err
		},
		run: func(t *trial) error { return visit(t, t.nodes[4]) },
	},
	{name: "clocks an hour apart", refetches: nothing,
		prepare: func(t *trial, i int, n *node) (err error) {
			n.Env = []string{fmt.Sprint("LAB_SKEW=", []int{0, 1800, -1800, 60}[i])}
			n.Binary, err = t.lab.buildSkewed()
			return err
		},
		run: func(t *trial) error {
			time.Sleep(20 * time.Second)
			return nil
		},
	},
	{name: "clock wrong at the start", later: 1, refetches: unfresh, run: correctClock,
		prepare: func(t *trial, i int, n *node) (err error) {
			if i == t.size() {
				n.Binary, err = t.lab.buildSkewed()
			}
			return err
		},
	},
	{name: "descriptors used up", refetches: some, run: useUpDescriptors},
	{name: "reloads throughout", quick: true, refetches: nothing, run: func(t *trial) error {
		rounds := 10
		if t.lab.quick {
			rounds = 2
		}
		for i := range rounds {
			for _, n := range t.nodes {
				n.Options = fmt.Sprintf("fill_timeout %ds", 50+i)
				if err := n.load(); err != nil {
					return err
				}
				time.Sleep(500 * time.Millisecond)
			}
		}
		return nil
	}},
	{name: "everything", onNetwork: true, refetches: 100, run: soak},
}

// together does the same to some nodes at the same time.
func together(nodes []*node, do func(*node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func freeze(t *trial, d time.Duration) error {
	n := t.nodes[1]
	n.goes()
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(d)
	n.comes() // from the first answer on
	return n.Signal(syscall.SIGCONT)
}

// split cuts the cluster in two halves, purges on one side and heals.
func split(t *trial, d time.Duration) error {
	t.net.set(cut, []int{0, 1}, []int{2, 3})
	t.purgeVia.Store(t.nodes[0])
	time.Sleep(d)
	promised := t.nodes[0].promised.Load()
	for i := range 10 { // a short split may end before anybody is found dead
		if t.purgeNews(t.nodes[0]) {
			break
		}
		if i == 0 {
			t.note("purges fail until the other half is found dead")
		}
		time.Sleep(time.Second)
	}
	if t.nodes[0].promised.Load() == promised {
		return errors.New("no purge has succeeded on one side")
	}
	if t.nodes[2].promised.Load() >= t.nodes[0].promised.Load() {
		return errors.New("the other side knows of the purge: the network was not split")
	}
	t.heals()
	t.purgeVia.Store(nil)
	t.net.heal()
	return nil
}

func originIs(t *trial, m mood) error {
	t.origin.set(m)
	t.origin.most.Store(0)
	t.lasts(25*time.Second, 3*time.Second)
	t.note("at most %d requests at a time have reached the origin", t.origin.most.Load())
	t.origin.set(well)
	return nil
}

// amidFills has some nodes wait for what another one, the leader, fetches, and does
// something amid it.
func amidFills(t *trial, kind string, do func(leader *node) error) error {
	leader, rest := t.nodes[1], others(t.nodes, t.nodes[1])
	var all sync.WaitGroup
	for i := range 8 { // so that each node owns some
		path := fmt.Sprintf("/%s/%d", kind, i)
		all.Go(func() { t.load.request(leader, path) })
		for _, n := range rest {
			all.Go(func() {
				time.Sleep(slowBody / 6)
				t.load.request(n, path)
			})
		}
	}
	time.Sleep(slowBody / 2)
	err := do(leader)
	all.Wait()
	return err
}

func killLeader(t *trial) error {
	leader := t.nodes[1]
	if err := amidFills(t, slow, func(n *node) error { n.kill(); return nil }); err != nil {
		return err
	}
	if fetches, pages := t.origin.fetched(slow); pages != 8 || fetches < 9 {
		return fmt.Errorf("%d fetches of %d pages: the leader was not killed amid them", fetches, pages)
	} else {
		t.note("%d fetches of 8 pages that 4 clients each waited for", fetches)
	}
	return leader.again()
}

// oneProcessor keeps many nodes on one machine out of each other's way.
func oneProcessor(_ *trial, _ int, n *node) error {
	n.Env = []string{"GOMAXPROCS=1"}
	return nil
}

// visit has a node come that the others don't take in, and go.
func visit(t *trial, stranger *node) error {
	if err := stranger.Start(); err != nil {
		return err
	}
	t.lasts(20*time.Second, 5*time.Second)
	if !stranger.Running() {
		t.note("it has ended by itself")
	}
	stranger.kill()
	return nil
}

// useUpDescriptors leaves a node no file descriptors, as a flood of connections
// does.
func useUpDescriptors(t *trial) error {
	n := t.nodes[1]
	before, err := n.usage()
	if err != nil {
		return err
	}
	pid := n.Pid()
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return fmt.Errorf("reading a limit: %w", err)
	}
	n.goes()
	few := unix.Rlimit{Cur: uint64(before.descriptors + 20), Max: limit.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		return fmt.Errorf("setting a limit: %w", err)
	}
	for range few.Cur {
		conn, err := n.dial(context.Background(), "tcp", n.HTTP)
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	err = await(10*time.Second, "the node has no descriptors left", func() bool {
		_, err := n.Status()
		return err != nil
	})
	if err != nil {
		return err
	}
	time.Sleep(20 * time.Second)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return fmt.Errorf("setting a limit: %w", err)
	}
	if err := n.awaitServing(); err != nil {
		return err
	}
	n.comes()
	return nil
}

// names lists what faults there are.
func names(fs []fault) string {
	var all []string
	for _, f := range fs {
		all = append(all, f.name)
	}
	return strings.Join(all, "\n")
}

// soak has one fault follow another, for what only many of them would show.
func soak(t *trial) error {
	mishaps := []func(n *node, i int) error{
		func(n *node, _ int) error {
			n.kill()
			return n.again()
		},
		func(n *node, _ int) error { return errors.Join(n.stop(), n.again()) },
		func(n *node, _ int) error {
			n.goes()
			defer n.comes()
			err := n.Signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(1+rand.IntN(8)) * time.Second)
			return errors.Join(err, n.Signal(syscall.SIGCONT))
		},
		func(_ *node, i int) error {
			t.net.set(cut, []int{i}, []int{(i + 1) % 4, (i + 2) % 4, (i + 3) % 4})
			time.Sleep(time.Duration(1+rand.IntN(12)) * time.Second)
			return nil
		},
		func(_ *node, i int) error {
			t.net.set(cut, []int{i, (i + 1) % 4}, []int{(i + 2) % 4, (i + 3) % 4})
			time.Sleep(time.Duration(1+rand.IntN(12)) * time.Second)
			return nil
		},
		func(_ *node, i int) error {
			t.net.set(link{loss: 0.05, delay: 40 * time.Millisecond, jitter: 20 * time.Millisecond}, []int{i}, []int{0, 1, 2, 3})
			time.Sleep(5 * time.Second)
			return nil
		},
		func(n *node, _ int) error {
			n.Options = fmt.Sprintf("fill_timeout %ds", 30+rand.IntN(30))
			return n.load()
		},
		func(*node, int) error {
			t.origin.set([]mood{failing, dying}[rand.IntN(2)])
			time.Sleep(3 * time.Second)
			t.origin.set(well)
			return nil
		},
	}
	n := 0
	for end := time.Now().Add(t.lab.soak); time.Now().Before(end); n++ {
		i := rand.IntN(len(t.nodes))
		if err := mishaps[rand.IntN(len(mishaps))](t.nodes[i], i); err != nil {
			return err
		}
		t.net.heal()
		time.Sleep(time.Duration(rand.IntN(4000)) * time.Millisecond)
	}
	t.note("%d mishaps in %v", n, t.lab.soak)
	return nil
}
