package store

import "encoding/binary"

// ChunkSize is the most that one value of a Group holds. A larger body is
// divided into chunks of this size (the last one is what remains): the first
// belongs to the owner of the key and comes with the entry, each further one
// has an owner of its own. All are named by the body's generation.
const ChunkSize = 1 << 20

// MaxBodySize is the largest body that can be stored.
const MaxBodySize = 1 << 40

// Chunks returns how many chunks a body of a size has; an empty one has none.
func Chunks(size int64) int { return int((size + ChunkSize - 1) / ChunkSize) }

// ChunkLength returns the length of chunk i of a body of a size.
func ChunkLength(size int64, i int) int64 {
	return max(min(size-int64(i)*ChunkSize, ChunkSize), 0)
}

// Large reports whether the entry's body has more than one chunk.
func (e *Entry) Large() bool { return e.Size > ChunkSize }

// ChunkKey returns the key that decides who owns chunk i of a key's body.
func ChunkKey(k Key, i int) Key {
	first := binary.BigEndian.Uint64(k[:])
	// An odd factor keeps the chunks of one body apart; the ring mixes.
	binary.BigEndian.PutUint64(k[:], first+uint64(i)*0x9e3779b97f4a7c15)
	return k
}

// Chunk returns chunk i of a body that is larger than SmallBody, if it is on this
// node; otherwise the error is ErrGone. Its bytes must not be changed.
func (s *Store) Chunk(k Key, g Generation, i int) ([]byte, error) {
	b, err := s.bodies.lookup(chunkKey(k, g, i))
	if err != nil {
		return nil, ErrGone
	}
	return b, nil
}

// PutChunk keeps chunk i of a body that is larger than SmallBody. If this node is not its owner, the
// Group decides whether it becomes a hot copy.
func (s *Store) PutChunk(k Key, g Generation, i int, chunk []byte, owned bool) {
	s.putBody(chunkKey(k, g, i), chunk, !owned)
}

func chunkKey(k Key, g Generation, i int) string {
	if i == 0 {
		return groupKey(k, g)
	}
	return groupKey(k, g) + string(binary.BigEndian.AppendUint32(nil, uint32(i)))
}
