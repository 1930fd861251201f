// Command lab breaks clusters of real Caddy processes in every way that is
// known to happen, while clients ask, and prints what they noticed.
//
// Each fault has a cluster of its own, in front of an origin that counts and
// whose answers carry a version. Load runs before, during and after the fault.
// docs/faults.md tells what is counted and what came of it last.
//
//	go run ./lab                   # all faults, an hour; as root, those of the network too
//	go run ./lab -run split        # those whose name has that in it
//	go run ./lab -list
package main
