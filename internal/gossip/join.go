package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

const (
	maxJoins = 8 // at the same time
	// youngFor is how long a new node repeats its own state to others: see round.
	youngFor = time.Minute
)

// A joiner joins seeds for ever: two halves of a cluster that were apart for
// longer than memberlist gossips to the dead never find each other by
// themselves, and a seed that was down must not stay alone. So not being alone
// is no reason to stop.
type joiner struct {
	m        *Membership
	started  time.Time
	outcomes map[string]string // of each seed, the kind as last logged; of run's goroutine
	now      chan struct{}     // 1-buffered: seeds has changed
	tried    chan struct{}     // closed when the first round is over

	mu        sync.Mutex // guards below
	seeds     []string
	skipRound context.CancelFunc // ends the round under way
}

func newJoiner(m *Membership) *joiner {
	return &joiner{
		m: m, started: time.Now(), outcomes: make(map[string]string),
		now: make(chan struct{}, 1), tried: make(chan struct{}), seeds: slices.Clone(m.cfg.Join),
	}
}

// setSeeds replaces the seeds; the new ones are joined at once.
func (j *joiner) setSeeds(seeds []string) {
	j.mu.Lock()
	j.seeds = slices.Clone(seeds)
	if j.skipRound != nil {
		j.skipRound()
	}
	j.mu.Unlock()
	poke(j.now)
}

// run joins round after round, until ctx ends.
func (j *joiner) run(ctx context.Context) {
	first := sync.OnceFunc(func() { close(j.tried) })
	for {
		round, cancel := context.WithCancel(ctx)
		j.mu.Lock()
		j.skipRound = cancel
		seeds := slices.Clone(j.seeds)
		j.mu.Unlock()
		guard.Run(func() { j.round(round, seeds) })
		first()
		cancel()

		// Jitter: nodes that start together must not resolve and join in step for ever.
		every := j.m.cfg.rejoinEvery
		wait := time.NewTimer(every*3/4 + rand.N(every/2+1))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-j.now:
			wait.Stop()
		case <-wait.C:
		}
	}
}

// round joins the addresses that the seeds resolve to now, except those of present
// members, and the addresses of dead members.
func (j *joiner) round(ctx context.Context, seeds []string) {
	resolved := j.m.cfg.resolveSeeds(ctx, seeds)
	if ctx.Err() != nil {
		return
	}
	present, targets := j.m.roster.targets(time.Now(), j.m.cfg.rejoinEvery)
	self := j.m.selfAddrs()
	for i := range resolved {
		r := &resolved[i]
		if j.m.roster.local && slices.ContainsFunc(r.addrs, func(a netip.AddrPort) bool { return !a.Addr().IsLoopback() }) {
			r.err, r.addrs = fmt.Errorf("it is another machine, which cannot reach this node's loopback address %s: give the option gossip the address that other nodes dial", j.m.advertise), nil
		}
		for _, addr := range r.addrs {
			if !present[addr] && !self(addr) {
				targets[addr] = true
			}
		}
	}
	// Others refuse a node that comes back with its old name and a new
	// address until they have noticed the death and DeadNodeReclaimTime is
	// over, while to the node itself all looks well. So for its first minute
	// it repeats its state to a random member.
	if time.Since(j.started) < youngFor {
		for addr := range present { // in random order
			targets[addr] = true
			break
		}
	}
	joined := j.joinAll(ctx, targets)
	if ctx.Err() != nil {
		return
	}
	alone := j.m.roster.alone()
	seen := make(map[string]bool)
	for _, r := range resolved {
		seen[r.seed] = true
		became := r.outcome(present, self, joined)
		if became.text == seedJoined && alone {
			became.text = seedSelf // by an address that it does not know to be its own
		}
		j.logOutcome(r.seed, became)
	}
	for seed := range j.outcomes {
		if !seen[seed] {
			delete(j.outcomes, seed)
		}
	}
}

// joinAll joins targets, a few at a time, and returns how each went.
func (j *joiner) joinAll(ctx context.Context, targets map[netip.AddrPort]bool) map[netip.AddrPort]error {
	joined := make(map[netip.AddrPort]error, len(targets))
	var mu sync.Mutex // guards joined
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxJoins)
	for addr := range targets {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		guard.GoWait(&wg, func() {
			defer func() { <-slots }()
			// An IP and port: memberlist then resolves nothing by itself.
			_, err := j.m.list.Join([]string{addr.String()})
			if one := errors.Unwrap(err); one != nil {
				err = one // a list of one error is printed over several lines
			}
			mu.Lock()
			joined[addr] = err
			mu.Unlock()
			if err == nil {
				j.m.roster.retrySoon(addr)
			}
		})
	}
	wg.Wait()
	return joined
}

// An outcome is a seed's result in a round. Its text is for the log.
type outcome struct {
	text string
	err  error
}

const (
	seedJoined      = "joined"
	seedSelf        = "is this node itself"
	seedUnresolved  = "cannot be resolved or used"
	seedUnreachable = "cannot be joined"
)

func (r resolvedSeed) outcome(present map[netip.AddrPort]bool, self func(netip.AddrPort) bool, joined map[netip.AddrPort]error) outcome {
	if r.err != nil {
		return outcome{seedUnresolved, r.err}
	}
	became := outcome{text: seedSelf}
	for _, addr := range r.addrs {
		err, tried := joined[addr]
		switch {
		case present[addr] || tried && err == nil:
			return outcome{text: seedJoined}
		case self(addr):
		default:
			became = outcome{seedUnreachable, err}
		}
	}
	return became
}

// kind is what tells outcomes apart: not the ports and times in their errors.
func (o outcome) kind() string {
	if o.err == nil {
		return o.text
	}
	return o.text + ": " + strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, o.err.Error())
}

// logOutcome logs a seed's outcome, if it differs from that in the round before.
func (j *joiner) logOutcome(seed string, became outcome) {
	if j.outcomes[seed] == became.kind() {
		return
	}
	j.outcomes[seed] = became.kind()
	switch became.text {
	case seedJoined:
		j.m.log.Info("seed joined", zap.String("seed", seed))
	case seedSelf:
		j.m.log.Debug("seed is this node itself", zap.String("seed", seed))
	default:
		j.m.log.Warn("seed "+became.text+"; trying again for ever", zap.String("seed", seed), zap.Error(became.err))
	}
}

// selfAddrs returns a test for addresses that lead back to this node.
func (m *Membership) selfAddrs() func(netip.AddrPort) bool {
	var local []netip.Addr
	if m.bound.Addr().IsUnspecified() {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			m.log.Debug("listing this host's addresses", zap.Error(err))
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				local = append(local, prefix.Addr().Unmap().WithZone(""))
			}
		}
	}
	return func(addr netip.AddrPort) bool {
		return addr == m.advertise || addr == m.bound ||
			addr.Port() == m.bound.Port() && slices.Contains(local, addr.Addr())
	}
}
