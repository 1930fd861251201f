package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

func readAll(t *testing.T, r *Reader[string]) ([]byte, error) {
	t.Helper()
	defer r.Close()
	var all []byte
	for {
		p, err := r.Next(t.Context(), nil)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if len(p) == 0 {
			t.Fatal("Next returned nothing")
		}
		all = append(all, p...)
	}
}

// elsewhere keeps the chunks of a fill that are settled.
type elsewhere struct {
	mu     sync.Mutex
	chunks map[int][]byte
	asked  int
	held   atomic.Int64 // parts that readers have and not let go of
}

func (e *elsewhere) settle(f *Fill[string], last bool) {
	for {
		i, b := f.Unsettled(last)
		if b == nil {
			return
		}
		e.mu.Lock()
		e.chunks[i] = bytes.Clone(b)
		e.mu.Unlock()
		f.Settle(i)
	}
}

func (e *elsewhere) recall(_ context.Context, i int, offset int64) ([]byte, func(), error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.chunks[i] == nil {
		return nil, nil, errors.New("not here")
	}
	e.held.Add(1)
	p := e.chunks[i][offset:]
	return p[:(len(p)+1)/2], func() { e.held.Add(-1) }, nil
}
