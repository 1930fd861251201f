package peer

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// reporter is a Reporter of functions.
type reporter struct {
	inspect func(*Query) any
	report  func() any
	entries func([]byte) (any, error)
}

func (r reporter) Inspect(q *Query) any { return r.inspect(q) }
func (r reporter) Report() any          { return r.report() }

func (r reporter) Entries(question []byte) (any, error) { return r.entries(question) }

func serveReports(t *testing.T, r Reporter) Node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(rejecting(t), new(Identity))
	s.Reporter = r
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return Node{Name: "asked", Addr: l.Addr().String()}
}

type saying struct{ Said string }

func TestReports(t *testing.T) {
	var asked atomic.Pointer[Query]
	to := serveReports(t, reporter{
		inspect: func(q *Query) any { asked.Store(q); return saying{"inspected"} },
		report:  func() any { return saying{"fine"} },
		entries: func(question []byte) (any, error) {
			if string(question) != "what" {
				return nil, errors.New("not understood")
			}
			return saying{"listed"}, nil
		},
	})
	c := newClient(t)
	var got saying
	if err := c.Entries(t.Context(), to, []byte("what"), &got); err != nil || got.Said != "listed" {
		t.Errorf("%v, %v", got, err)
	}
	if err := c.Entries(t.Context(), to, []byte("nothing"), &got); err == nil {
		t.Error("a question that is not understood was answered")
	}
	if err := c.Status(t.Context(), to, &got); err != nil || got.Said != "fine" {
		t.Errorf("%v, %v", got, err)
	}
	q := NewQuery("g", store.Key{1}, http.Header{"Accept": {"a"}, "X-Y": {"b"}}, []string{"X-Y"})
	if err := c.Inspect(t.Context(), to, q, &got); err != nil || got.Said != "inspected" {
		t.Errorf("%v, %v", got, err)
	}
	if a := asked.Load(); a == nil || a.Key != q.Key || a.Group != "g" || !reflect.DeepEqual(a.Fields, q.Fields) {
		t.Errorf("asked for %+v", a)
	}
}

func TestNodesWithoutReportsAreNamed(t *testing.T) {
	to, _ := serve(t, rejecting(t))
	if err := newClient(t).Status(t.Context(), to, new(saying)); !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), to.Name) {
		t.Errorf("got %v", err)
	}
}

// TestReportsAreBounded: on both sides, whoever is on the other one.
func TestReportsAreBounded(t *testing.T) {
	long := strings.Repeat("x", maxReport)
	to := serveReports(t, reporter{report: func() any { return saying{long} }})
	if err := newClient(t).Status(t.Context(), to, new(saying)); err == nil {
		t.Error("a report beyond the bound was sent")
	}
	careless := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 64 {
			if _, err := w.Write([]byte(long)); err != nil {
				return
			}
		}
	}))
	careless.Config.Protocols = new(http.Protocols)
	careless.Config.Protocols.SetUnencryptedHTTP2(true)
	careless.Start()
	defer careless.Close()
	to = Node{Name: "careless", Addr: careless.Listener.Addr().String()}
	if err := newClient(t).Status(t.Context(), to, new(saying)); !errors.Is(err, ErrProtocol) {
		t.Errorf("a report beyond the bound was read: %v", err)
	}
	to = serveReports(t, reporter{report: func() any { return make([]struct{}, maxObjects+1) }})
	if err := newClient(t).Status(t.Context(), to, new([]saying)); !errors.Is(err, ErrProtocol) {
		t.Errorf("a report of too many objects was read: %v", err)
	}
}
