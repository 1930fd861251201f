package node

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// The file that persist writes is a magic number, and records: a length and a
// CRC-32C of four bytes each, big endian, and so many bytes. The first record is
// the head. Each of the others is an entry with its body, or a chunk, as they
// cross the wire to another node. One of no bytes is the end.

const (
	SavedName = "cache.saved"
	// SavedMagic ends with the version of the format, and of what crosses the
	// wire. A file of another one is not read.
	SavedMagic = "caddy-groupcache saved 1\n"

	// syncEvery is how much is written before it is waited for until the disk
	// has it, so that the end does not take long, in bytes.
	syncEvery = 16 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	ErrUnreadable = errors.New("not what was written")
)

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
	record   bytes.Buffer
	unsynced int
}

// CreateSaved begins a file in a directory.
func CreateSaved(dir string, head SavedHead) (*savedWriter, error) {
	file, err := os.CreateTemp(dir, SavedName+".*") // for its owner only
	if err != nil {
		return nil, err
	}
	w := &savedWriter{file: file, out: bufio.NewWriterSize(file, 256<<10)}
	_, _ = w.out.WriteString(SavedMagic) // an error sticks
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
	var head [8]byte
	binary.BigEndian.PutUint32(head[:], uint32(w.record.Len()))
	binary.BigEndian.PutUint32(head[4:], crc32.Checksum(w.record.Bytes(), castagnoli))
	_, _ = w.out.Write(head[:])
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
	Record []byte
}

// NewSavedReader reads the beginning of a file.
func NewSavedReader(r io.Reader) (*savedReader, SavedHead, error) {
	s := &savedReader{in: bufio.NewReaderSize(r, 256<<10)}
	magic := make([]byte, len(SavedMagic))
	if _, err := io.ReadFull(s.in, magic); err != nil || string(magic) != SavedMagic {
		return nil, SavedHead{}, ErrUnreadable
	}
	b, err := s.Next()
	if err != nil {
		return nil, SavedHead{}, ErrUnreadable
	}
	head, err := decodeHead(b)
	return s, head, err
}

// Next returns the next record, which is good until the next call, or io.EOF after
// the last. After errUnreadable the next may be good; after any other error
// nothing can be read any more.
func (s *savedReader) Next() ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return nil, fmt.Errorf("reading a record: %w", io.ErrUnexpectedEOF)
	}
	length := int(binary.BigEndian.Uint32(head[:]))
	switch {
	case length == 0:
		return nil, io.EOF
	case length > peer.MaxSaved:
		return nil, fmt.Errorf("a record of %d bytes: %w", length, io.ErrUnexpectedEOF)
	case length > cap(s.Record):
		s.Record = make([]byte, length)
	}
	s.Record = s.Record[:length]
	if _, err := io.ReadFull(s.in, s.Record); err != nil {
		return nil, fmt.Errorf("reading a record: %w", io.ErrUnexpectedEOF)
	}
	if crc32.Checksum(s.Record, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, ErrUnreadable
	}
	return s.Record, nil
}
