package caddygroupcache

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// This file makes the ring of the members that memberlist knows of. The list
// itself, and all that it takes to get it, is internal/gossip's.

// protocolVersion is the version of the peer protocol this build speaks. A
// member of another version stays a member but is not in the ring.
const protocolVersion = 1

// joinCluster starts gossip. It never waits for other nodes.
func (p *process) joinCluster(c gossip.Cluster) (*gossip.Membership, error) {
	return gossip.Start(gossip.Config{
		Name: p.node.Name, Cluster: c.Name, Gossip: c.Gossip, AdvertiseGossip: c.AdvertiseGossip,
		Peers: c.AdvertisePeers, Version: protocolVersion, Life: p.node.Life, Join: c.Join,
		Keys: c.Keys, Identity: p.node.Identity, Logger: p.config.logger(),
		LocalState: func() []byte { return peer.EncodePurges(p.node.Purger.Latest(), time.Time{}) },
		MergeState: p.node.Purger.Merge, Changed: p.memberChanged, OnChange: p.membersChanged, Joined: p.node.Purger.Joining.Begin(),
	})
}

// usable reports whether a member may own keys.
func usable(m gossip.Member) bool {
	return m.Present() && m.Version == protocolVersion && m.Peers != ""
}

// membersChanged tells the node which members may own keys, and notes the
// others, which a purge cannot reach.
func (p *process) membersChanged(members []gossip.Member) {
	var ring []peer.Node
	foreign := []string{}
	lives := make([]uint64, 0, len(members))
	for _, m := range members {
		lives = append(lives, m.Life)
		if usable(m) {
			ring = append(ring, peer.Node{Name: m.Name, Addr: m.Peers, Life: m.Life})
		} else if !m.Self {
			foreign = append(foreign, m.Name)
		}
	}
	p.node.Purger.Foreign.Store(&foreign)
	p.node.Loops.Set(lives)
	p.node.Members.Set(ring)
}

// memberChanged logs that a member is not as it was, and emits the event of it.
func (p *process) memberChanged(was, is gossip.Member) {
	fields := []zap.Field{
		zap.String("member", is.Name), zap.String("state", is.State),
		zap.String("gossip", is.Gossip), zap.String("peers", is.Peers), zap.Uint8("version", is.Version),
	}
	if is.Present() && !usable(is) {
		p.config.logger().Warn("member is not put into the ring: it speaks another version of the peer protocol, or its peer address is unreadable", fields...)
	} else {
		p.config.logger().Info("member changed", fields...)
	}
	if is.State == gossip.StateLeft {
		p.node.Members.Left(is.Name)
	}
	p.events.Member(was, is)
}

// onReach tells of a member that is not put into the ring because it does not answer,
// and when it answers.
func (p *process) onReach(of peer.Node, why error) {
	fields := []zap.Field{zap.String("member", of.Name), zap.String("peers", of.Addr)}
	if why == nil {
		p.quiet.Write(zapcore.InfoLevel, "reached "+of.Name, "member answers at its peers address and is put into the ring", fields...)
		return
	}
	p.quiet.Write(zapcore.WarnLevel, "unreachable "+of.Name, "member does not answer at its peers address, and is not put into the ring: let the other nodes reach that port, or correct what it advertises", append(fields, zap.Error(why))...)
}
