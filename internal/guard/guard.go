// Package guard starts goroutines whose panic does not end the process.
//
// A panic in the goroutine that serves a request ends that request: net/http
// recovers it. Every other goroutine has nobody to do that, and handles what a
// client, an upstream, a handler or a peer has sent all the same. So product
// code starts goroutines and timers here and nowhere else. A panic is counted
// and reported, and the goroutine ends as if its function had returned; what it
// holds it must let go of in a defer.
//
// Where another goroutine waits that a panic belongs to, Catch hands it over.
package guard

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

var (
	panics atomic.Int64
	report atomic.Pointer[func(value any, stack []byte)]
)

// Panics returns how many panics were recovered since the process started.
// http.ErrAbortHandler is not among them: a handler ends its response with that,
// and means nothing else.
func Panics() int64 { return panics.Load() }

// Report has f told of each panic that is counted. f may be called by several
// goroutines at the same time. nil: nobody is told.
func Report(f func(value any, stack []byte)) {
	if f == nil {
		report.Store(nil)
		return
	}
	report.Store(&f)
}

// Go runs f in a goroutine of its own.
func Go(f func()) { go Run(f) }

// GoWait runs f in a goroutine of its own, for whose end wg waits.
func GoWait(wg *sync.WaitGroup, f func()) { wg.Go(func() { Run(f) }) }

// AfterFunc is time.AfterFunc.
func AfterFunc(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { Run(f) })
}

// AfterContext is context.AfterFunc.
func AfterContext(ctx context.Context, f func()) (stop func() bool) {
	return context.AfterFunc(ctx, func() { Run(f) })
}

// Run calls f, and reports whether that has returned without a panic. It is for
// one turn of a goroutine that goes on after it.
func Run(f func()) (ok bool) {
	p := Catch(f)
	if p == nil {
		return true
	}
	if p.value != http.ErrAbortHandler {
		panics.Add(1)
		if tell := report.Load(); tell != nil {
			(*tell)(p.value, p.stack)
		}
	}
	return false
}

// A Panic is one that was caught, on its way to the goroutine that it belongs to.
type Panic struct {
	value any
	stack []byte // of the goroutine that panicked
}

// Catch calls f and returns its panic, or nil.
func Catch(f func()) (caught *Panic) {
	defer func() {
		if value := recover(); value != nil {
			caught = &Panic{value: value, stack: debug.Stack()}
		}
	}()
	f()
	return nil
}

// Again panics in the goroutine that calls it. It does nothing on nil.
func (p *Panic) Again() {
	switch {
	case p == nil:
	case p.value == http.ErrAbortHandler: // net/http knows it by its identity
		panic(p.value)
	default:
		panic(p)
	}
}

// Error tells the panic with the stack that it comes from.
func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

// Unwrap returns what the panic was about, if that is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.value.(error)
	return err
}
