package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A balancer hands the requests of each test to one node after the other. It
// reads the first bytes of a connection to learn which test it is for, and then
// passes on all bytes as they are, so it distorts nothing. That takes a client
// that opens a connection for every request, which it insists on.
type balancer struct {
	listener net.Listener
	backends []string

	mu    sync.Mutex     // guards what follows
	turn  map[string]int // the next node of each test
	first error          // what went wrong first
}

// connectionTime bounds a connection.
const connectionTime = time.Minute

func startBalancer(backends []string) (*balancer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: l, backends: backends, turn: make(map[string]int)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer conn.Close()
				if err := b.serve(conn); err != nil {
					b.fail(err)
				}
			}()
		}
	}()
	return b, nil
}

func (b *balancer) address() string { return b.listener.Addr().String() }

func (b *balancer) close() { b.listener.Close() }

func (b *balancer) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first == nil {
		b.first = fmt.Errorf("between client and nodes: %w", err)
	}
}

// err returns what went wrong, apart from connections that break off: that is
// for the tests to judge.
func (b *balancer) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.first
}

func (b *balancer) serve(client net.Conn) error {
	if err := client.SetDeadline(time.Now().Add(connectionTime)); err != nil {
		return err
	}
	buffered := bufio.NewReader(client)
	head, err := readHead(buffered)
	if err != nil {
		return err
	}
	node, err := net.DialTimeout("tcp", b.next(testOf(head)), connectionTime)
	if err != nil {
		return err
	}
	defer node.Close()
	if err := node.SetDeadline(time.Now().Add(connectionTime)); err != nil {
		return err
	}
	go func() { // the rest of the request; ends with the connection
		_, _ = node.Write(head)
		_, _ = io.Copy(node, buffered)
	}()
	_, _ = io.Copy(client, node)
	return nil
}

// readHead reads as far as the empty line after the header.
func readHead(r *bufio.Reader) ([]byte, error) {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if head = append(head, line...); len(head) > 1<<20 {
			return nil, errors.New("a request header without an end")
		}
	}
	if !bytes.Contains(bytes.ToLower(head), []byte("\r\nconnection: close\r\n")) {
		return nil, fmt.Errorf("the client does not close its connection after a request:\n%s", head)
	}
	return head, nil
}

// testOf returns the second segment of the path, where the suite has a test's
// unique id: /config/ID, /test/ID..., /state/ID.
func testOf(head []byte) string {
	_, rest, _ := strings.Cut(string(head), " /")
	target, _, _ := strings.Cut(rest, " ")
	path, _, _ := strings.Cut(target, "?")
	_, rest, _ = strings.Cut(path, "/")
	id, _, _ := strings.Cut(rest, "/")
	return id
}

// next returns the node whose turn it is. A new test begins at another node
// than the one before.
func (b *balancer) next(test string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, known := b.turn[test]
	if !known {
		n = len(b.turn)
	}
	b.turn[test] = n + 1
	return b.backends[n%len(b.backends)]
}
