package gossip

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// told returns a node as memberlist tells of it.
func told(name string, meta []byte) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.IPv4(192, 0, 2, 1), Port: 7946, Meta: meta}
}

// What a node's meta says while it runs, and when it is about to leave.
var (
	up  = meta{version: testVersion, peers: "x.test:1"}.encode()
	bye = meta{version: testVersion, leaving: true}.encode()
)

// What memberlist's events cannot tell apart in a live cluster at will.
func TestMemberStates(t *testing.T) {
	ro := newRoster("self")
	want := func(when, state string) {
		t.Helper()
		if got := ro.members(time.Now()); len(got) != 1 || got[0].State != state || got[0].Peers != "x.test:1" {
			t.Errorf("%s: %+v, want one that is %s", when, got, state)
		}
	}
	ro.note(told("x", up), false)
	want("joined", StateAlive)
	ro.suspect("x")
	want("after a failed probe", StateSuspect)
	if x := ro.members(time.Now())[0]; !usable(x) {
		t.Errorf("a suspect is not usable: %+v", x)
	}
	ro.trust("x")
	want("after an answer", StateAlive)
	ro.note(told("x", up), true)
	want("gone without a word", StateDead)
	ro.suspect("x")
	want("probed in vain when it was dead", StateDead)
	ro.note(told("x", up), false)
	ro.note(told("x", bye), false)
	want("after its announcement", StateLeft)
	ro.note(told("x", bye), true)
	want("after it left", StateLeft)
	ro.suspect("unknown")
	ro.trust("unknown")
	want("when others are suspected", StateLeft)
}

func TestDeadMembersAreTriedEverMoreRarely(t *testing.T) {
	ro := newRoster("self")
	ro.note(told("x", up), false)
	ro.note(told("x", up), true)
	now := time.Now()
	tries := func() (n int) {
		for range 600 {
			now = now.Add(time.Second)
			if _, dead := ro.targets(now, time.Second); len(dead) == 1 {
				n++
			}
		}
		return n
	}
	if n := tries(); n < 12 || n > 20 {
		t.Errorf("%d tries in ten minutes", n)
	}
	ro.retrySoon(ro.records["x"].addr)
	if n := tries(); n < 12 {
		t.Errorf("%d tries in ten minutes after its address has answered", n)
	}
}

func TestGoneMembersAreForgotten(t *testing.T) {
	ro := newRoster("self")
	ro.note(told("x", up), false)
	ro.note(told("x", up), true)
	if got := ro.members(time.Now().Add(forgetAfter - time.Second)); len(got) != 1 {
		t.Errorf("forgotten too early: %v", got)
	}
	if got := ro.members(time.Now().Add(forgetAfter + time.Second)); len(got) != 0 {
		t.Errorf("not forgotten: %v", got)
	}
	for i := range maxGone + 9 {
		ro.note(told(fmt.Sprint(i), up), false)
		ro.note(told(fmt.Sprint(i), up), true)
	}
	if got := ro.members(time.Now()); len(got) != maxGone || ro.records[fmt.Sprint(maxGone+8)] == nil {
		t.Errorf("%d gone members are kept, want the last %d", len(got), maxGone)
	}
}

func TestImpossibleMembersAreNotAccepted(t *testing.T) {
	ro := newRoster("self")
	for i := range maxMembers {
		ro.note(told(fmt.Sprint(i), up), false)
	}
	for name, n := range map[string]*memberlist.Node{
		"too many":    told("new", up),
		"no name":     told("", up),
		"long name":   told(strings.Repeat("x", 256), up),
		"bad name":    told("a\nb", up),
		"no address":  {Name: "1", Port: 1},
		"odd address": {Name: "1", Addr: net.IP{1, 2, 3}, Port: 1},
		"no port":     {Name: "1", Addr: net.IPv4(192, 0, 2, 1)},
		"long meta":   told("1", make([]byte, memberlist.MetaMaxSize+1)),
	} {
		if err := ro.accept(n); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if err := ro.accept(told("1", up)); err != nil {
		t.Error(err)
	}
}
