package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExpectedFile: what is committed explains itself.
func TestExpectedFile(t *testing.T) {
	e, err := loadExpected(filepath.Base(expectedFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(e) == 0 {
		t.Fatal("nothing is expected")
	}
	seen := make(map[string]bool)
	for _, test := range e {
		if seen[test.ID] {
			t.Errorf("%s is there twice", test.ID)
		}
		seen[test.ID] = true
		if test.lacksReason() {
			t.Errorf("%s does not pass, and nothing says why", test.ID)
		}
		if test.Why != "" && good(test.Single) && good(test.Cluster) {
			t.Errorf("%s passes, and something says why not", test.ID)
		}
	}
	saved := filepath.Join(t.TempDir(), "saved.json")
	if err := e.save(saved); err != nil {
		t.Fatal(err)
	}
	if was, is := read(t, filepath.Base(expectedFile)), read(t, saved); was != is {
		t.Error("-update would write it differently")
	}
}

// TestLockFile: npm may fetch the suite from whichever registry it is set to.
func TestLockFile(t *testing.T) {
	if strings.Contains(read(t, "package-lock.json"), `"resolved"`) {
		t.Error("package-lock.json names a registry")
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestJudge(t *testing.T) {
	failed := func(r result, kind, message string) result {
		r.Error, r.Message = kind, message
		return r
	}
	passed := func(r result) result {
		r.Passed = true
		return r
	}
	verdicts := judge([]result{
		passed(result{ID: "upon-later", Kind: "required", DependsOn: []string{"later"}}),
		passed(result{ID: "upon-upon-later", Kind: "optimal", DependsOn: []string{"upon-later"}}),
		failed(result{ID: "later", Kind: "check"}, "Assertion", "not so"),
		passed(result{ID: "passed", Kind: "required"}),
		passed(result{ID: "upon-passed", Kind: "optimal", DependsOn: []string{"passed"}}),
		passed(result{ID: "does", Kind: "check"}),
		failed(result{ID: "failed", Kind: "optimal"}, "Assertion", "not so"),
		failed(result{ID: "broke", Kind: "check", DependsOn: []string{"later"}}, "FetchError", "timeout"),
		failed(result{ID: "setup", Kind: "check"}, "Setup", "status is 502"),
		failed(result{ID: "retried", Kind: "required"}, "Setup", "retry"),
		passed(result{ID: "upon-itself", Kind: "required", DependsOn: []string{"upon-itself"}}),
		passed(result{ID: "upon-none", Kind: "required", DependsOn: []string{"browsers-only"}}),
	})
	for id, want := range map[string]string{
		"upon-later": depends, "upon-upon-later": depends, "later": no, "passed": pass, "upon-passed": pass,
		"does": yes, "failed": fail, "broke": broken, "setup": setup, "retried": retry,
		"upon-itself": depends, "upon-none": depends,
	} {
		if verdicts[id] != want {
			t.Errorf("%s: %s, want %s", id, verdicts[id], want)
		}
	}
}

func TestWorst(t *testing.T) {
	ok, bad := result{ID: "a", Passed: true}, result{ID: "a", Message: "second round"}
	joined, err := worst([][]result{{ok}, {bad}, {ok}})
	if err != nil || len(joined) != 1 || joined[0].Passed || joined[0].Message != bad.Message {
		t.Errorf("got %+v, %v", joined, err)
	}
	if _, err := worst([][]result{{ok}, {}}); err == nil {
		t.Error("a round without a test passes for a round")
	}
}

func TestCompare(t *testing.T) {
	expected := expectations{
		{ID: "same", Kind: "required", Single: pass, Cluster: pass},
		{ID: "worse", Kind: "required", Single: pass, Cluster: pass},
		{ID: "better", Kind: "optimal", Single: fail, Cluster: depends, Why: "not yet"},
		{ID: "behaves-otherwise", Kind: "check", Single: yes, Cluster: no},
		{ID: "fails-otherwise", Kind: "required", Single: fail, Cluster: fail, Why: "right"},
		{ID: "breaks", Kind: "optimal", Single: depends, Cluster: fail, Why: "not yet"},
		{ID: "cannot-tell", Kind: "check", Single: no, Cluster: no},
		{ID: "unexplained", Kind: "optimal", Single: fail, Cluster: pass},
		{ID: "switched-off", Kind: "required", Single: setup, Cluster: setup, Switched: pass, Why: "right"},
		{ID: "gone", Kind: "check", Single: yes, Cluster: yes},
	}
	verdicts := []verdict{
		{id: "same", kind: "required", single: pass, cluster: pass},
		{id: "worse", kind: "required", single: pass, cluster: fail},
		{id: "better", kind: "optimal", single: pass, cluster: pass},
		{id: "behaves-otherwise", kind: "check", single: no, cluster: no},
		{id: "fails-otherwise", kind: "required", single: setup, cluster: fail},
		{id: "breaks", kind: "optimal", single: broken, cluster: fail},
		{id: "cannot-tell", kind: "check", single: setup, cluster: no},
		{id: "unexplained", kind: "optimal", single: fail, cluster: pass},
		{id: "switched-off", kind: "required", single: setup, cluster: setup, switched: setup},
		{id: "new", kind: "check", single: yes, cluster: yes},
	}
	for i, v := range verdicts {
		if v.switched == "" {
			verdicts[i].switched = v.cluster
		}
	}
	d := expected.compare(verdicts)
	for _, c := range []struct {
		what      string
		got, want []string
	}{
		{"worse", ids(d.worse), []string{"worse", "breaks", "cannot-tell", "switched-off", "new", "gone"}},
		{"better", ids(d.better), []string{"better"}},
		{"changed", ids(d.changed), []string{"behaves-otherwise", "fails-otherwise"}},
		{"unexplained", d.unexplained, []string{"unexplained"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}

	updated := expected.updated(verdicts)
	d = updated.compare(verdicts)
	if len(d.worse)+len(d.better)+len(d.changed) > 0 {
		t.Errorf("differs after an update: %+v", d)
	}
	known := updated.byID()
	if why := known["better"].Why; why != "" {
		t.Errorf("a test that passes keeps its reason %q", why)
	}
	if why := known["fails-otherwise"].Why; why != "right" {
		t.Errorf("an update made the reason %q", why)
	}
}

// TestBalancer: the requests of a test go to one node after the other, byte
// for byte, in both directions.
func TestBalancer(t *testing.T) {
	var backends []string
	for i := range 3 {
		l := listen(t)
		backends = append(backends, l.Addr().String())
		go echo(l, i)
	}
	b, err := startBalancer(backends)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	const requests = 7
	first := make(map[string]int)
	for _, id := range []string{"one", "two", "three", "four"} {
		for i := range requests {
			request := fmt.Sprintf("PUT /%s/%s?a=/b/ HTTP/1.1\r\nhOsT:  demo\r\nX: 1\r\nX: 2\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody",
				[]string{"test", "config"}[i%2], id)
			var node int
			answer := exchange(t, b.address(), request)
			if _, err := fmt.Sscanf(answer, "node %d", &node); err != nil {
				t.Fatalf("got %q", answer)
			}
			if i == 0 {
				first[id] = node
			}
			if want := (first[id] + i) % 3; node != want {
				t.Errorf("request %d of %s went to node %d, want %d", i, id, node, want)
			}
			if want := fmt.Sprintf("node %d: %s", node, request); answer != want {
				t.Errorf("got %q, want %q", answer, want)
			}
		}
	}
	if len(first) != 4 || first["one"] == first["two"] || first["two"] == first["three"] {
		t.Errorf("tests begin at nodes %v", first)
	}
	if err := b.err(); err != nil {
		t.Error(err)
	}
}

func TestBalancerInsistsOnClose(t *testing.T) {
	backend := httptest.NewServer(http.NotFoundHandler())
	defer backend.Close()
	b, err := startBalancer([]string{backend.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if answer := exchange(t, b.address(), "GET /test/a HTTP/1.1\r\nHost: a\r\n\r\n"); answer != "" {
		t.Errorf("got %q", answer)
	}
	if b.err() == nil {
		t.Error("a client may keep its connection")
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// echo answers each connection with its number and what it got, up to the end
// of the body.
func echo(l net.Listener, number int) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		var got strings.Builder
		for r := bufio.NewReader(conn); !strings.HasSuffix(got.String(), "body"); {
			c, err := r.ReadByte()
			if err != nil {
				break
			}
			got.WriteByte(c)
		}
		fmt.Fprintf(conn, "node %d: %s", number, got.String())
		conn.Close()
	}
}

// exchange sends bytes on a connection of their own, and returns what comes
// back.
func exchange(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, connectionTime)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}
