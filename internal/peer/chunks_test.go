package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestChunksCrossTheWire(t *testing.T) {
	id := ChunkID{Key: store.Key{1}, Generation: 2, Index: 3}
	for _, size := range []int{1, 4097, store.ChunkSize} {
		want := bytes.Repeat([]byte("z"), size)
		var kept []byte
		to, _ := serve(t, backend{
			chunk: func(got ChunkID) []byte {
				if got != id {
					return nil
				}
				return want
			},
			put: func(got ChunkID, chunk []byte) {
				if got != id {
					t.Errorf("put as %v", got)
				}
				kept = chunk
			},
		})
		c := newClient(t)
		if got, err := c.Chunk(t.Context(), to, id, int64(size), Wait{Begin: patience, All: patience}); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d, %v", len(got), size, err)
		}
		if _, err := c.Chunk(t.Context(), to, id, int64(size)+1, Wait{Begin: patience, All: patience}); !errors.Is(err, ErrMissing) {
			t.Errorf("a chunk of another length: %v", err)
		}
		if _, err := c.Chunk(t.Context(), to, ChunkID{Key: id.Key, Generation: 9, Index: 3}, 1, Wait{Begin: patience, All: patience}); !errors.Is(err, ErrMissing) {
			t.Errorf("a chunk that is not there: %v", err)
		}
		if err := c.PutChunk(t.Context(), to, id, want, Wait{Begin: patience, All: patience}); err != nil || !bytes.Equal(kept, want) {
			t.Errorf("put %d bytes of %d, %v", len(kept), size, err)
		}
	}
}

func TestWhichChunksAreThere(t *testing.T) {
	body := ChunkID{Key: store.Key{1}, Generation: 2}
	to, s := serve(t, backend{chunk: func(id ChunkID) []byte {
		if id.Key != body.Key || id.Generation != body.Generation || id.Index%2 == 0 {
			return nil
		}
		return []byte("x")
	}})
	c := newClient(t)
	if got, err := c.Chunks(t.Context(), to, body, []int{1, 2, 3, 900}); err != nil || !slices.Equal(got, []int{1, 3}) {
		t.Errorf("there are %v, %v", got, err)
	}
	many := make([]int, MaxAskedChunks+1)
	if _, err := c.Chunks(t.Context(), to, body, many); err == nil || s.Refused() != 1 {
		t.Errorf("more than may be asked for: %v, %d refused", err, s.Refused())
	}
}

func TestChunkIsRefusedWithoutMemory(t *testing.T) {
	to, s := serve(t, backend{full: true})
	err := newClient(t).PutChunk(t.Context(), to, ChunkID{store.Key{1}, 2, 3}, []byte("abc"), Wait{Begin: patience, All: patience})
	if !errors.Is(err, ErrRefused) || s.Refused() != 0 {
		t.Errorf("%v, and %d broke the protocol", err, s.Refused())
	}
}

func TestChunksThatAreNotWhatTheySay(t *testing.T) {
	good := ChunkID{store.Key{1}, 2, 3}
	chunk := []byte("abc")
	message := func(id ChunkID, data, summed []byte, g store.Generation) []byte {
		var b bytes.Buffer
		w := frameWriter{w: &b}
		w.frame(frameChunk, id.append)
		_ = w.data(data) // a Buffer never fails
		w.end(store.Digest(summed), g)
		_ = w.flush()
		return b.Bytes()
	}
	for name, sent := range map[string][]byte{
		"digest":        message(good, chunk, []byte("abd"), 2),
		"generation":    message(good, chunk, chunk, 3),
		"no generation": message(ChunkID{store.Key{1}, 0, 3}, chunk, chunk, 0),
		"first chunk":   message(ChunkID{store.Key{1}, 2, 0}, chunk, chunk, 2),
		"no data":       message(good, nil, nil, 2),
		"cut off":       message(good, chunk, chunk, 2)[:60],
		"too long":      message(good, bytes.Repeat([]byte("x"), store.ChunkSize+1), nil, 2),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := readChunk(newFrameReader(bytes.NewReader(sent)), good, int64(len(chunk))); err == nil {
				t.Errorf("got %q", got)
			}
			to, s := serve(t, backend{put: func(ChunkID, []byte) { t.Error("kept") }})
			_, err := newClient(t).post(t.Context(), to, pathStore, bytes.NewReader(sent), int64(len(sent)))
			if err == nil || s.Refused() != 1 {
				t.Errorf("%v, %d refused", err, s.Refused())
			}
		})
	}
	other := message(ChunkID{store.Key{1}, 2, 4}, chunk, chunk, 2)
	if _, err := readChunk(newFrameReader(bytes.NewReader(other)), good, 3); !errors.Is(err, ErrProtocol) {
		t.Errorf("another chunk: %v", err)
	}
}

// growing is a large Body: a first chunk, then what is stored.
type growing struct {
	first  []byte
	stored []Stored
}

func (g *growing) Next(context.Context, func()) (p []byte, s Stored, err error) {
	switch {
	case g.first != nil:
		p, g.first = g.first, nil
	case len(g.stored) > 0:
		s, g.stored = g.stored[0], g.stored[1:]
	default:
		err = io.EOF
	}
	return p, s, err
}

func TestLargeBodiesArePublishedAndFollowedByWhatIsStored(t *testing.T) {
	first := bytes.Repeat([]byte("a"), store.ChunkSize)
	stored := []Stored{{7, 2 * store.ChunkSize}, {7, 2*store.ChunkSize + 5}}
	var got sink
	to, _ := serve(t, backend{
		publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
			var b bytes.Buffer
			got = sink{Writer: &b}
			if err := p.Body(&got); err != nil || !bytes.Equal(b.Bytes(), first) {
				t.Errorf("%d bytes, %v", b.Len(), err)
			}
			return 7, rfc9111.None
		},
		lookup: func(_ context.Context, _ *Query, a *Answer) {
			a.Follow(nil)
			a.Header(testEntry(nil))
			a.Data(first)
			for _, s := range stored {
				a.Stored(s)
			}
			a.End(store.Digest(first), 7)
		},
	})
	c := newClient(t)
	q := NewQuery("g", store.Key{1}, http.Header{}, nil)
	g, err := c.Publish(t.Context(), to, &Publication{Query: q, Entry: testEntry(nil)}, &growing{first, stored})
	if g != 7 || err != nil || !reflect.DeepEqual(got.stored, stored) {
		t.Errorf("generation %d, %v; the owner was told %v", g, err, got.stored)
	}
	reply, err := c.Lookup(t.Context(), to, q, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Close()
	if _, err := reply.Header(); err != nil {
		t.Fatal(err)
	}
	followed := sink{Writer: io.Discard}
	if g, err := reply.Body(&followed); g != 7 || err != nil || !reflect.DeepEqual(followed.stored, stored) {
		t.Errorf("generation %d, %v; the follower was told %v", g, err, followed.stored)
	}
}

func TestFirstChunkIsBounded(t *testing.T) {
	var b bytes.Buffer
	w := frameWriter{w: &b}
	_ = w.data(bytes.Repeat([]byte("a"), store.ChunkSize))
	_ = w.data([]byte("b"))
	w.end(0, 1)
	_ = w.flush()
	if _, err := copyBody(newFrameReader(&b), into(io.Discard)); !errors.Is(err, ErrProtocol) {
		t.Errorf("%v", err)
	}
}

func FuzzChunk(f *testing.F) {
	id := ChunkID{store.Key{1}, 2, 3}
	var w frameWriter
	w.frame(frameChunk, id.append)
	_ = w.data([]byte("abc"))
	w.end(store.Digest([]byte("abc")), 2)
	f.Add([]byte(w.buf))
	f.Add([]byte(w.buf[:50]))
	f.Fuzz(func(t *testing.T, b []byte) {
		chunk, err := readChunk(newFrameReader(bytes.NewReader(b)), id, 3)
		if err == nil && len(chunk) != 3 {
			t.Errorf("got %q", chunk)
		}
	})
}

// A node that says nothing costs what it costs anywhere: not the time of a chunk.
func TestSilentNodeCostsNoChunksTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	release := make(chan struct{})
	thinking, _ := serve(t, backend{chunk: func(ChunkID) []byte { <-release; return nil }})
	defer close(release)
	c := newClient(t)
	begun := time.Now()
	wait := Wait{Begin: 50 * time.Millisecond, All: patience}
	_, err = c.Chunk(t.Context(), Node{Name: "silent", Addr: silent.Addr().String()}, ChunkID{store.Key{1}, 2, 3}, 1, wait)
	_, thinks := c.Chunk(t.Context(), thinking, ChunkID{store.Key{1}, 2, 3}, 1, wait)
	if !errors.Is(err, ErrTimeout) || !errors.Is(thinks, ErrTimeout) || time.Since(begun) > patience/2 {
		t.Errorf("%v, %v after %v", err, thinks, time.Since(begun))
	}
}
