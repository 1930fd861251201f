package store

import (
	"net/http"
	"sync"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// What Select remembers must never be what other fields selected.
func TestSelectAsComputed(t *testing.T) {
	names := [][]string{
		{"Accept"}, {"Accept-Encoding"}, {"accept-encoding"}, {"Accept", "Accept-Encoding"}, {"Accept-Encoding", "Origin"},
		{"A", "B", "C"}, {"A", "B", "C", "D"},
	}
	lines := [][]string{nil, {}, {""}, {"gzip"}, {"GZIP"}, {"gzip, br"}, {"gzip", "br"}, {"br"}, {string(make([]byte, 300))}}
	var all sync.WaitGroup
	seeds := seed.Of(t)
	for range 4 {
		random := seeds.Rand()
		all.Go(func() {
			for range 20_000 {
				request := make(http.Header)
				for _, name := range []string{"Accept", "Accept-Encoding", "Origin", "A", "B", "C", "D"} {
					if values := lines[random.IntN(len(lines))]; values != nil {
						request[name] = values
					}
				}
				by := names[random.IntN(len(names))]
				if got, want := Select(by, request), computeSelection(by, request); got != want {
					t.Errorf("by %q of %q: %x, want %x", by, request, got, want)
					return
				}
			}
		})
	}
	all.Wait()
}

// A request's fields may be changed after they were looked at.
func TestSelectKeepsNothing(t *testing.T) {
	names, value := []string{"Accept"}, []string{"one"}
	request := http.Header{"Accept": value}
	first := Select(names, request)
	value[0], names[0] = "two", "Accept-Encoding"
	if Select([]string{"Accept"}, http.Header{"Accept": {"one"}}) != first {
		t.Error("the selection of the same fields changed")
	}
	if Select([]string{"Accept"}, request) == first {
		t.Error("another value selects the same")
	}
}

func BenchmarkSelect(b *testing.B) {
	request := http.Header{"Accept-Encoding": {"gzip, deflate, br, zstd"}}
	names := []string{"Accept-Encoding"}
	b.Run("remembered", func(b *testing.B) {
		for b.Loop() {
			Select(names, request)
		}
	})
	b.Run("computed", func(b *testing.B) {
		for b.Loop() {
			computeSelection(names, request)
		}
	})
}
