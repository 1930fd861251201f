package freeport

import (
	"net"
	"testing"
)

func TestNoPortIsGivenTwice(t *testing.T) {
	few := Range{15900, 15904}
	seen := make(map[string]bool)
	addrs, release, err := few.Take(2)
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
	addrs, release, err := Range{15910, 15912}.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	release()
	u, err := net.ListenPacket("udp", addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	other, release, err := Range{15910, 15912}.Take(1)
	if err != nil {
		t.Skip("somebody else has the other of the two ports")
	}
	defer release()
	if other[0] == addrs[0] {
		t.Errorf("%s was given, and is in use", other[0])
	}
}
