//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// serves fails the test unless the process is there and answers.
func (p *process) serves(t *testing.T, path, body string) {
	t.Helper()
	select {
	case <-p.died:
		t.Fatalf("%s has ended: %v", p.name, p.cmd.ProcessState)
	default:
	}
	p.get(path).is(t, p.name, body)
}

// nested is a node's configuration with one cache behind another one, both with
// options of their own.
func (p *process) nested(outer, inner string) string {
	config := strings.Replace(p.caddyfile(""), "groupcache {\n\t\t"+p.site+"\n", "groupcache {\n\t\t"+outer+"\n", 1)
	return strings.Replace(config, "\thandle {\n", "\thandle {\n\t\tgroupcache {\n\t\t\t"+inner+"\n\t\t}\n", 1)
}

// TestAbortedResponseEndsNoProcess: the cache behind another one sends to the client
// from a goroutine of its own. If the other one breaks the response off there, that
// ends the response.
func TestAbortedResponseEndsNoProcess(t *testing.T) {
	var reading atomic.Int32
	o := startOrigin(t, nil)
	o.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path != "/page" {
			_, _ = io.WriteString(w, bodyOf(r.URL.Path))
			return
		}
		body := strings.Repeat("other bytes ", 10_000)
		first := reading.Load() == 0
		if first {
			body = strings.Repeat("first bytes ", 10_000)
		}
		for i := 0; i < len(body); i += 10_000 {
			if first && i >= 50_000 {
				for deadline := time.Now().Add(hang); reading.Load() < 4 && time.Now().Before(deadline); {
					time.Sleep(poll)
				}
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, body[i:i+10_000])
			w.(http.Flusher).Flush()
		}
	})
	p := newCluster(t, 1, o, "")[0]
	p.config = p.nested("group a", "group b")
	p.start()
	for i, a := range together(4, 4, func(int) answer {
		return do(p.request(http.MethodGet, "/page", nil), func() { reading.Add(1) })
	}) {
		if a.err == nil || !strings.HasPrefix(strings.Repeat("first bytes ", 10_000), a.body) {
			t.Errorf("client %d: %d, %s, %v", i, a.status, brief(a.body), a.err)
		}
	}
	p.serves(t, "/after", bodyOf("/after"))
	if n := p.metric("caddy_groupcache_panics_total"); n != 0 {
		t.Errorf("%v panics had nobody whom they belonged to", n)
	}
}

// A stranger speaks gossip, and tells whoever exchanges states with it what it likes.
type stranger struct{ meta, state []byte }

func (s stranger) NodeMeta(int) []byte           { return s.meta }
func (s stranger) LocalState(bool) []byte        { return s.state }
func (stranger) NotifyMsg([]byte)                {}
func (stranger) GetBroadcasts(int, int) [][]byte { return nil }
func (stranger) MergeRemoteState([]byte, bool)   {}

// TestMemberEndsNoOther: what a node that joins tells of purges is checked before it is
// made use of, in gossip and on the peers port, and no nonsense ends a process.
func TestMemberEndsNoOther(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	p := startCluster(t, 1, o, "")[0]
	for i, selector := range []store.Selector{
		{Kind: store.OfKey, Value: "shorter than a key"},
		{Kind: store.OfKey, Value: strings.Repeat("longer than a key", 3)},
		{Kind: store.OfKey},
		{Kind: store.KindCount, Value: "of no kind"},
	} {
		refused := p.refused("gossip")
		purges := peer.EncodePurges([]store.Purge{{ID: store.PurgeID(i + 1), Selectors: []store.Selector{selector}}}, time.Time{})
		ports := freePorts(t, 2)
		addr := netip.MustParseAddrPort(ports[0])
		// It answers on no peers port, but whoever sees it will ask there.
		joining(t, fmt.Sprint("stranger", i), addr, stranger{append([]byte{1}, ports[1]...), purges}, p.gossip)
		eventually(t, "the state is refused", func() bool {
			select {
			case <-p.died:
				t.Fatalf("selector %d has ended the process: %v", i, p.cmd.ProcessState)
			default:
			}
			return p.refused("gossip") > refused
		})
		resp, err := unencrypted().Post("http://"+p.peers+"/1/purge", "", strings.NewReader(string(purges)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("selector %d: a purge was answered with %s", i, resp.Status)
		}
	}
	p.serves(t, "/after", bodyOf("/after"))
	if n := p.metric("caddy_groupcache_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
}

// joining starts a member that joins another one, until the test ends.
func joining(t *testing.T, name string, addr netip.AddrPort, who memberlist.Delegate, other string) {
	t.Helper()
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.Delegate = name, "caddy-groupcache", who
	c.BindAddr, c.BindPort = addr.Addr().String(), int(addr.Port())
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.LogOutput = io.Discard
	c.EnableCompression = false
	m, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Shutdown() })
	if _, err := m.Join([]string{other}); err != nil {
		t.Fatal(err)
	}
}

// unencrypted is a client as nodes without a secret have it.
func unencrypted() *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: &protocols}, Timeout: hang}
}
