package node

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// The file that persist writes is a magic number, a random salt, and records: a length
// of four bytes, big endian, a tag, and so many bytes. The first record is the head.
// Each of the others is an entry with its body, or a chunk, as they cross the wire to
// another node. One of no bytes is the end.
//
// The tag is an HMAC-SHA256 of the salt, the record's place, its length and its bytes.
// So no byte of the file can change, no record can move, and none of another file
// can stand in its place without being noticed. Where the cluster has a secret the key
// follows from it, and only a process that knows the secret can write such a file.

const (
	SavedName = "cache.saved"
	// SavedMagic ends with the version of the format, and of what crosses the
	// wire. A file of another one is not read.
	SavedMagic = "caddy-groupcache saved 2\n"

	saltSize, tagSize = 16, 16

	// syncEvery is how much is written before it is waited for until the disk
	// has it, so that the end does not take long, in bytes.
	syncEvery = 16 << 20
)

// ErrUnreadable says that a record is not what was written.
var ErrUnreadable = errors.New("not what was written")

// A tagger makes the tags of a file's records, one after another.
type tagger struct {
	mac   hash.Hash
	salt  []byte
	place uint64
}

func newTagger(key, salt []byte) *tagger { return &tagger{hmac.New(sha256.New, key), salt, 0} }

// next returns the tag of the next record. It is good until the next call.
func (t *tagger) next(record []byte) []byte {
	t.mac.Reset()
	var head [16]byte
	binary.BigEndian.PutUint64(head[:], t.place)
	binary.BigEndian.PutUint64(head[8:], uint64(len(record)))
	t.place++
	_, _ = t.mac.Write(t.salt) // never fails
	_, _ = t.mac.Write(head[:])
	_, _ = t.mac.Write(record)
	return t.mac.Sum(nil)[:tagSize]
}

// A SavedHead tells what is needed to judge the rest.
type SavedHead struct {
	Written time.Time       // by the wall clock, before anything was looked at
	Marker  store.PurgeID   // which other nodes were told then; 0: there were none
	Known   []store.PurgeID // the purges with which all entries were compared
}

func (h SavedHead) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(h.Written.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Marker))
	for _, id := range h.Known {
		b = binary.BigEndian.AppendUint64(b, uint64(id))
	}
	return b
}

func decodeHead(b []byte) (h SavedHead, err error) {
	if len(b) < 16 || len(b)%8 != 0 {
		return h, ErrUnreadable
	}
	h.Written = time.Unix(0, int64(binary.BigEndian.Uint64(b)))
	h.Marker = store.PurgeID(binary.BigEndian.Uint64(b[8:]))
	for b = b[16:]; len(b) > 0; b = b[8:] {
		h.Known = append(h.Known, store.PurgeID(binary.BigEndian.Uint64(b)))
	}
	return h, nil
}

// A savedWriter writes a file under another name, until it is complete.
type savedWriter struct {
	file     *os.File
	out      *bufio.Writer
	tags     *tagger
	record   bytes.Buffer
	unsynced int
}

// CreateSaved begins a file in a directory. The first key signs it, if there is one.
func CreateSaved(dir string, head SavedHead, keys [][]byte) (*savedWriter, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	var key []byte
	if len(keys) > 0 {
		key = keys[0]
	}
	file, err := os.CreateTemp(dir, SavedName+".*") // for its owner only
	if err != nil {
		return nil, err
	}
	w := &savedWriter{file: file, out: bufio.NewWriterSize(file, 256<<10), tags: newTagger(key, salt)}
	_, _ = w.out.WriteString(SavedMagic) // an error sticks
	_, _ = w.out.Write(salt)
	w.record.Write(head.encode())
	return w, w.end()
}

// Entry writes an entry with its body, and chunk a further chunk.
func (w *savedWriter) Entry(group string, k store.Key, e *store.Entry, body []byte) error {
	if err := peer.NewGift(&w.record).Entry(group, k, e, body, false); err != nil {
		return err
	}
	return w.end()
}

func (w *savedWriter) chunk(id peer.ChunkID, chunk []byte) error {
	if err := peer.NewGift(&w.record).Chunk(id, chunk); err != nil {
		return err
	}
	return w.end()
}

// end ends a record.
func (w *savedWriter) end() error {
	defer w.record.Reset()
	head := binary.BigEndian.AppendUint32(nil, uint32(w.record.Len()))
	_, _ = w.out.Write(append(head, w.tags.next(w.record.Bytes())...))
	if _, err := w.out.Write(w.record.Bytes()); err != nil {
		return err
	}
	if w.unsynced += w.record.Len(); w.unsynced < syncEvery {
		return nil
	}
	return w.sync()
}

func (w *savedWriter) sync() error {
	w.unsynced = 0
	if err := w.out.Flush(); err != nil {
		return err
	}
	return w.file.Sync()
}

// Finish completes the file, or lets go of it if it can't be.
func (w *savedWriter) Finish(err error) error {
	if err == nil {
		err = w.end() // a record of no bytes
	}
	if err == nil {
		err = w.sync()
	}
	if closeErr := w.file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(w.file.Name(), filepath.Join(filepath.Dir(w.file.Name()), SavedName))
	}
	if err != nil {
		_ = os.Remove(w.file.Name()) // which has a name that no process reads
	}
	return err
}

// A savedReader reads what a savedWriter has written, or anything else.
type savedReader struct {
	in     *bufio.Reader
	tags   *tagger
	Record []byte
}

// NewSavedReader reads the beginning of a file, which was written with one of the keys,
// or without a key if there are none.
func NewSavedReader(r io.Reader, keys [][]byte) (*savedReader, SavedHead, error) {
	s := &savedReader{in: bufio.NewReaderSize(r, 256<<10)}
	begin := make([]byte, len(SavedMagic)+saltSize)
	if _, err := io.ReadFull(s.in, begin); err != nil || string(begin[:len(SavedMagic)]) != SavedMagic {
		return nil, SavedHead{}, ErrUnreadable
	}
	tag, err := s.read()
	if err != nil {
		return nil, SavedHead{}, ErrUnreadable
	}
	if len(keys) == 0 {
		keys = [][]byte{nil}
	}
	for _, key := range keys {
		s.tags = newTagger(key, begin[len(SavedMagic):])
		if hmac.Equal(s.tags.next(s.Record), tag) {
			head, err := decodeHead(s.Record)
			return s, head, err
		}
	}
	return nil, SavedHead{}, ErrUnreadable
}

// Next returns the next record, which is good until the next call, or io.EOF after
// the last. After ErrUnreadable the next may be good; after any other error
// nothing can be read any more.
func (s *savedReader) Next() ([]byte, error) {
	tag, err := s.read()
	if err != nil {
		return nil, err
	}
	good := hmac.Equal(s.tags.next(s.Record), tag)
	switch {
	case good && len(s.Record) > 0:
		return s.Record, nil
	case good:
		return nil, io.EOF
	case len(s.Record) > 0:
		return nil, ErrUnreadable
	}
	return nil, fmt.Errorf("reading the end: %w", io.ErrUnexpectedEOF)
}

// read reads a record, whatever it says, and its tag.
func (s *savedReader) read() (tag []byte, err error) {
	var head [4 + tagSize]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return nil, fmt.Errorf("reading a record: %w", io.ErrUnexpectedEOF)
	}
	length := int(binary.BigEndian.Uint32(head[:]))
	switch {
	case length > peer.MaxSaved:
		return nil, fmt.Errorf("a record of %d bytes: %w", length, io.ErrUnexpectedEOF)
	case length > cap(s.Record):
		s.Record = make([]byte, length)
	}
	s.Record = s.Record[:length]
	if _, err := io.ReadFull(s.in, s.Record); err != nil {
		return nil, fmt.Errorf("reading a record: %w", io.ErrUnexpectedEOF)
	}
	return head[4:], nil
}
