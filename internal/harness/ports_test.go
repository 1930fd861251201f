package harness

import (
	"net"
	"runtime"
	"strconv"
	"testing"
)

func TestNoPortIsGivenTwice(t *testing.T) {
	seen := make(map[string]bool)
	few := Range{15000, 15004}
	addrs, release, err := few.Take(2)
	for err != nil && few.end < 15900 { // somebody else has them
		few = Range{few.end, few.end + 4}
		addrs, release, err = few.Take(2)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	taken := 2
	for {
		more, free, err := few.Take(1)
		if err != nil {
			break
		}
		defer free()
		addrs = append(addrs, more...)
		taken++
	}
	for _, addr := range addrs {
		if seen[addr] {
			t.Errorf("%s was given twice", addr)
		}
		seen[addr] = true
	}
	if taken < 2 || taken > 4 {
		t.Errorf("%d of 4 ports were given", taken)
	}
}

func TestPortsInUseAreNotGiven(t *testing.T) {
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, port := range []int{u.LocalAddr().(*net.UDPAddr).Port, l.Addr().(*net.TCPAddr).Port} {
		if addrs, _, err := (Range{port, port + 1}).Take(1); err == nil {
			t.Errorf("%s was given, and is in use", addrs[0])
		}
	}
}

// Another process has been given a port, and does not listen on it yet.
func TestPortsOfOtherProcessesAreNotGiven(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("nothing can be claimed")
	}
	port := 15940
	claimed, err := claim("127.0.0.1:" + strconv.Itoa(port))
	for err != nil && port < 15999 { // it really is another process's
		port++
		claimed, err = claim("127.0.0.1:" + strconv.Itoa(port))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer claimed.Close()
	if addrs, _, err := (Range{port, port + 1}).Take(1); err == nil {
		t.Errorf("%s is given twice", addrs[0])
	}
}

func TestPortsThatWereReleasedAreGivenAgain(t *testing.T) {
	few := Range{15930, 15940}
	for range 20 {
		_, release, err := few.Take(1)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
}
