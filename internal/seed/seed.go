// Package seed gives tests with random input their numbers. A test that fails prints
// its seed, and takes it back from the environment.
package seed

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// Variable is the environment variable with the seed that a test is to have.
const Variable = "GROUPCACHE_TEST_SEED"

// A Source has the random numbers of a test.
type Source struct {
	seed    uint64
	streams atomic.Uint64
}

// Of returns the random numbers of a test: those of the seed in the environment, or of
// a new one. The log of the test, which go test prints when it fails, has the seed.
func Of(t testing.TB) *Source {
	t.Helper()
	s := &Source{seed: rand.Uint64()}
	if given := os.Getenv(Variable); given != "" {
		var err error
		if s.seed, err = strconv.ParseUint(given, 0, 64); err != nil {
			t.Fatalf("%s: %v", Variable, err)
		}
	}
	t.Logf("%s=%d repeats the random numbers of this test", Variable, s.seed)
	return s
}

// Rand returns the next stream of random numbers. A stream is for one goroutine; those
// of several are the same again if Rand is called in the same order.
func (s *Source) Rand() *rand.Rand { return rand.New(rand.NewPCG(s.seed, s.streams.Add(1))) }

// Rapid has pgregory.net/rapid draw from the seed of a test until the test ends, unless
// its own flag -rapid.seed is given.
func Rapid(t testing.TB) {
	t.Helper()
	f := flag.Lookup("rapid.seed")
	if f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(strconv.FormatUint(max(Of(t).seed, 1), 10)); err != nil { // 0 is none
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(f.DefValue) }) // it parsed once already
}
