package node

import (
	"fmt"
	"sync/atomic"
)

// What the cache fetches may come to a cache again: to a second handler in the same
// route, to another site of this process, or to another node. If that one has the same
// group, it has the same responses too, and would wait for the flight that the request
// itself leads. So each request that the cache makes says in CDN-Loop (RFC 8586) which
// process and which group it comes from, and a handler of that group, in that process
// or another one of the cluster, hands it straight on. A request never waits for
// another one inside a group that it is in already, so no two can wait for each other.

// loops are the ids that the members of the cluster have in CDN-Loop.
type loops struct {
	Self    string // set before the node is used, and never again: handlers read it while members change
	members atomic.Pointer[map[string]struct{}]
}

// LoopID is what a process is called in CDN-Loop. It says nothing of the node, and is
// another one after a restart.
func LoopID(life uint64) string { return fmt.Sprintf("groupcache-%016x", life) }

// Set takes in the lives of the processes that are members of the cluster. This one
// always is.
func (l *loops) Set(lives []uint64) {
	members := map[string]struct{}{l.Self: {}}
	for _, life := range lives {
		if life != 0 {
			members[LoopID(life)] = struct{}{}
		}
	}
	l.members.Store(&members)
}

// Has reports whether an id is that of a member.
func (l *loops) Has(id string) bool {
	_, ok := (*l.members.Load())[id]
	return ok
}
