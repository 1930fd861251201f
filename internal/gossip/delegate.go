package gossip

import (
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// A delegate takes memberlist's calls: delegate, events, alive and ping delegate in
// one. No method may wait or call memberlist: see the top of gossip.go.
type delegate struct{ m *Membership }

// NotifyJoin is called when a node has become a member.
func (d delegate) NotifyJoin(n *memberlist.Node) { guard.Run(func() { d.m.roster.note(n, false) }) }

// NotifyUpdate is called when a member's meta has changed.
func (d delegate) NotifyUpdate(n *memberlist.Node) { guard.Run(func() { d.m.roster.note(n, false) }) }

// NotifyLeave is called when a member has left or died.
func (d delegate) NotifyLeave(n *memberlist.Node) { guard.Run(func() { d.m.roster.note(n, true) }) }

// NotifyAlive refuses nodes whose description makes no sense, before
// memberlist remembers them and tells the others.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	err := errors.New("its description cannot be read") // if that panics
	guard.Run(func() { err = d.m.roster.accept(n) })
	return err
}

// NotifyPingComplete ends a suspicion. Only a direct answer gets here; after an
// indirect one the mark stays until suspectFor is over, which only shows.
func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	guard.Run(func() { d.m.roster.trust(n.Name) })
}

// AckPayload returns none.
func (d delegate) AckPayload() []byte { return nil }

// NotifyMsg does nothing: there are no user messages.
func (d delegate) NotifyMsg([]byte) {}

// GetBroadcasts returns none.
func (d delegate) GetBroadcasts(_, _ int) [][]byte { return nil }

// NodeMeta returns this node's meta.
func (d delegate) NodeMeta(int) []byte {
	if d.m.leaving.Load() {
		return meta{version: d.m.cfg.Version, leaving: true}.encode()
	}
	own := meta{version: d.m.cfg.Version, peers: d.m.cfg.Peers, receiver: receiver{life: d.m.cfg.Life}}
	if d.m.seal != nil {
		own.receiver = receiver{d.m.seal.life, d.m.seal.ids()}
	}
	return own.encode()
}

// LocalState returns the state that this node adds to a push/pull.
func (d delegate) LocalState(bool) []byte {
	if d.m.cfg.LocalState == nil {
		return nil
	}
	var state []byte
	guard.Run(func() { state = d.m.cfg.LocalState() })
	if len(state) > maxLocalState {
		return nil
	}
	return state
}

// MergeRemoteState takes the state that another node has added to a push/pull.
func (d delegate) MergeRemoteState(state []byte, _ bool) {
	if d.m.cfg.MergeState == nil || len(state) == 0 || len(state) > maxLocalState {
		return
	}
	select {
	case d.m.merges <- slices.Clone(state):
	default:
		d.m.mergesDropped.Add(1)
	}
}

// Interface guards
var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.AliveDelegate = delegate{}
	_ memberlist.PingDelegate  = delegate{}
)
