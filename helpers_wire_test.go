//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Clients that send whatever bytes they like, in each version of HTTP. net/http
// would not.

// A way is a version of HTTP as a client speaks it. Each request has a
// connection of its own.
type way struct {
	name string
	send func(p *process, r raw) answer
}

var (
	overHTTP1 = way{"HTTP/1.1", sendHTTP1}
	overHTTP2 = way{"HTTP/2", sendHTTP2}
	overHTTP3 = way{"HTTP/3", sendHTTP3}
)

// The two that are over TLS share what is stored: the scheme is in the key.
var ways = []way{overHTTP1, overHTTP2, overHTTP3}

// A raw is a request for clientHost, unless it says otherwise.
type raw struct {
	method, target string   // "": GET
	fields         []string // as lines, "Name: value"
	body           string

	// In HTTP/2 and HTTP/3: names and values of all pseudo-fields and fields, as
	// they are, in place of the above.
	head     []string
	trailers []string
}

// get sends a GET. fields are names and values.
func (w way) get(p *process, target string, fields ...string) answer {
	r := raw{target: target}
	for i := 0; i < len(fields); i += 2 {
		r.fields = append(r.fields, fields[i]+": "+fields[i+1])
	}
	return w.send(p, r)
}

// others are what clients get who ask later, in every way that shares what is
// stored with this one; twice, so that one may fill and one may hit.
func (w way) others(p *process, target string, fields ...string) (got []answer) {
	same := ways[1:]
	if w.name == overHTTP1.name {
		same = ways[:1]
	}
	for range 2 {
		for _, o := range same {
			got = append(got, o.get(p, target, fields...))
		}
	}
	return got
}

// lines splits fields that some cases have in one.
func (r raw) lines() []string {
	if len(r.fields) == 0 {
		return nil
	}
	return strings.Split(strings.Join(r.fields, "\r\n"), "\r\n")
}

func sendHTTP1(p *process, r raw) (a answer) {
	conn, err := net.DialTimeout("tcp", p.http, 5*time.Second)
	if err != nil {
		return answer{err: err}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	method := r.method
	if method == "" {
		method = http.MethodGet
	}
	fields := append([]string{method + " " + r.target + " HTTP/1.1", "Host: " + clientHost}, r.fields...)
	if r.body != "" {
		fields = append(fields, "Content-Length: "+strconv.Itoa(len(r.body)))
	}
	go func() { _, _ = io.WriteString(conn, lines(append(fields, "Connection: close")...)+r.body) }() // it may be refused before its end
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
}

// pseudo returns the request as HTTP/2 and HTTP/3 have it.
func (r raw) pseudo() []string {
	if r.head != nil {
		return r.head
	}
	method := r.method
	if method == "" {
		method = http.MethodGet
	}
	head := []string{":method", method, ":scheme", "https", ":authority", clientHost, ":path", r.target}
	for _, line := range r.lines() {
		name, value, _ := strings.Cut(line, ": ")
		head = append(head, strings.ToLower(name), value)
	}
	return head
}

// received takes in a field of a response.
func (a *answer) received(name, value string) {
	if name == ":status" {
		a.status, _ = strconv.Atoi(value) // 0 is no status
		return
	}
	if a.header == nil {
		a.header = make(http.Header)
	}
	a.header.Add(name, value)
}

// insecureTLS trusts every server: who they are is not what is tested.
func insecureTLS(protocol string) *tls.Config {
	return &tls.Config{ServerName: clientHost, InsecureSkipVerify: true, NextProtos: []string{protocol}}
}

// A connection of HTTP/2 to a node.
type http2Conn struct {
	*tls.Conn
	*http2.Framer
	block bytes.Buffer
	hpack *hpack.Encoder
}

func dialHTTP2(p *process) (*http2Conn, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", p.https, insecureTLS("h2"))
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := &http2Conn{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	c.hpack = hpack.NewEncoder(&c.block)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(conn, http2.ClientPreface)
	return c, errors.Join(err,
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 28}),
		c.WriteWindowUpdate(0, 1<<28))
}

// header sends names and values in as many frames as it takes.
func (c *http2Conn) header(stream uint32, head []string, end bool) error {
	c.block.Reset()
	for i := 0; i < len(head); i += 2 {
		if err := c.hpack.WriteField(hpack.HeaderField{Name: head[i], Value: head[i+1]}); err != nil {
			return err
		}
	}
	block := c.block.Bytes()
	some := block[:min(len(block), 16<<10)]
	block = block[len(some):]
	err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: some, EndStream: end, EndHeaders: len(block) == 0})
	for len(block) > 0 && err == nil {
		some = block[:min(len(block), 16<<10)]
		block = block[len(some):]
		err = c.WriteContinuation(stream, len(block) == 0, some)
	}
	return err
}

func sendHTTP2(p *process, r raw) (a answer) {
	c, err := dialHTTP2(p)
	if err != nil {
		return answer{err: err}
	}
	defer c.Close()
	go func() { // it may be refused before its end
		err := c.header(1, r.pseudo(), r.body == "" && r.trailers == nil)
		if err == nil && r.body != "" {
			err = c.WriteData(1, r.trailers == nil, []byte(r.body))
		}
		if err == nil && r.trailers != nil {
			_ = c.header(1, r.trailers, true)
		}
	}()
	var body strings.Builder
	for {
		f, err := c.ReadFrame()
		a.body = body.String()
		if err != nil {
			a.err = err
			return a
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				a.received(field.Name, field.Value)
			}
		case *http2.DataFrame:
			body.Write(f.Data())
		case *http2.RSTStreamFrame:
			if f.ErrCode != http2.ErrCodeNo || a.status == 0 {
				a.err = fmt.Errorf("reset: %v", f.ErrCode)
			}
			return a
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				a.err = fmt.Errorf("go away: %v", f.ErrCode)
				return a
			}
		}
		if h := f.Header(); h.StreamID == 1 && h.Flags.Has(http2.FlagDataEndStream) && (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) {
			a.body = body.String()
			return a
		}
	}
}

// Frame types of HTTP/3 (RFC 9114 §7.2).
const (
	http3Data     = 0
	http3Headers  = 1
	http3Settings = 4
)

func http3Frame(kind uint64, payload []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload))), payload...)
}

// http3Header encodes names and values, all of them literally (RFC 9204 §4.5.6).
func http3Header(head []string) []byte {
	block := []byte{0, 0}
	for i := 0; i < len(head); i += 2 {
		block = append(appendPrefixed(block, 0x20, 3, head[i]), appendPrefixed(nil, 0, 7, head[i+1])...)
	}
	return http3Frame(http3Headers, block)
}

// appendPrefixed appends a string after its length as RFC 7541 §5.1 writes it.
func appendPrefixed(b []byte, flags byte, bits int, s string) []byte {
	most := 1<<bits - 1
	n := len(s)
	if n < most {
		return append(append(b, flags|byte(n)), s...)
	}
	b = append(b, flags|byte(most))
	for n -= most; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(append(b, byte(n)), s...)
}

func sendHTTP3(p *process, r raw) (a answer) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := quic.DialAddr(ctx, p.https, insecureTLS("h3"), nil)
	if err != nil {
		return answer{err: err}
	}
	defer conn.CloseWithError(0x100, "") // H3_NO_ERROR
	control, err := conn.OpenUniStreamSync(ctx)
	if err != nil {
		return answer{err: err}
	}
	if _, err = control.Write(append([]byte{0}, http3Frame(http3Settings, nil)...)); err != nil {
		return answer{err: err}
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return answer{err: err}
	}
	deadline, _ := ctx.Deadline()
	_ = stream.SetDeadline(deadline)
	go func() { // it may be refused before its end
		frames := http3Header(r.pseudo())
		if r.body != "" {
			frames = append(frames, http3Frame(http3Data, []byte(r.body))...)
		}
		if r.trailers != nil {
			frames = append(frames, http3Header(r.trailers)...)
		}
		_, _ = stream.Write(frames)
		_ = stream.Close()
	}()
	var body strings.Builder
	in := bufio.NewReader(stream)
	for {
		kind, err := quicvarint.Read(in)
		if err != nil {
			if a.body = body.String(); !errors.Is(err, io.EOF) {
				a.err = err
			}
			return a
		}
		size, err := quicvarint.Read(in)
		if err != nil {
			return answer{err: err}
		}
		if kind == http3Data {
			_, err = io.CopyN(&body, in, int64(size))
		} else {
			payload := make([]byte, size)
			if _, err = io.ReadFull(in, payload); err == nil && kind == http3Headers {
				err = a.receivedBlock(payload)
			}
		}
		if err != nil {
			a.body, a.err = body.String(), err
			return a
		}
	}
}

func (a *answer) receivedBlock(block []byte) error {
	next := qpack.NewDecoder().Decode(block)
	for {
		field, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a.received(field.Name, field.Value)
	}
}

// overTLS adds a site over TLS to a node: for HTTP/2, and for HTTP/3 on the same
// port.
func (p *process) overTLS() {
	p.t.Helper()
	p.https = freePorts(p.t, 1)[0]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{clientHost},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		p.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: cert}, "key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

// tlsSite is the part of the node's configuration that overTLS is for.
func (p *process) tlsSite() string {
	if p.https == "" {
		return ""
	}
	return fmt.Sprintf(`
https://:%s {
	bind 127.0.0.1
	tls %s %s
	groupcache {
		%s
	}
	reverse_proxy %s
}
`, p.https[strings.LastIndexByte(p.https, ':')+1:], filepath.Join(p.dir, "cert"), filepath.Join(p.dir, "key"), p.site, p.upstream)
}
