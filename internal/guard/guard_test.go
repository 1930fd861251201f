package guard

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reported has panics go to a channel until the test ends.
func reported(t *testing.T) <-chan any {
	t.Helper()
	values := make(chan any, 10)
	Report(func(value any, stack []byte) {
		if !strings.Contains(string(stack), "guard_test.go") {
			t.Errorf("the stack does not show where the panic was: %s", stack)
		}
		values <- value
	})
	t.Cleanup(func() { Report(nil) })
	return values
}

// TestEveryWayRecovers: whatever starts a goroutine, its panic is counted,
// reported and goes no further.
func TestEveryWayRecovers(t *testing.T) {
	bug := func() { panic("a bug") }
	for name, start := range map[string]func(t *testing.T){
		"Go": func(*testing.T) { Go(bug) },
		"GoWait": func(*testing.T) {
			var wg sync.WaitGroup
			GoWait(&wg, bug)
			wg.Wait()
		},
		"AfterFunc": func(*testing.T) { AfterFunc(time.Nanosecond, bug) },
		"AfterContext": func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			AfterContext(ctx, bug)
			cancel()
		},
		"Run": func(t *testing.T) {
			if Run(bug) {
				t.Error("Run reports no panic")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			values, before := reported(t), Panics()
			synctest.Test(t, func(t *testing.T) {
				start(t)
				time.Sleep(time.Second)
			})
			if got := <-values; got != "a bug" || Panics() != before+1 {
				t.Errorf("%v was reported, %d counted", got, Panics()-before)
			}
		})
	}
}

func TestAbortIsNoFault(t *testing.T) {
	values, before := reported(t), Panics()
	if Run(func() { panic(http.ErrAbortHandler) }) || Panics() != before || len(values) != 0 {
		t.Error("http.ErrAbortHandler was counted")
	}
	if !Run(func() {}) {
		t.Error("what returns did not")
	}
}

// TestAgain: a panic that was handed over is what it was, and shows where it came
// from.
func TestAgain(t *testing.T) {
	again := func(value any) (got any) {
		caught := make(chan *Panic)
		Go(func() { caught <- Catch(func() { panic(value) }) })
		defer func() { got = recover() }()
		(<-caught).Again()
		return nil
	}
	if got := again(http.ErrAbortHandler); got != http.ErrAbortHandler {
		t.Errorf("got %v", got)
	}
	err := errors.New("a bug")
	got, ok := again(err).(error)
	if !ok || !errors.Is(got, err) || !strings.Contains(got.Error(), "guard_test.go") {
		t.Errorf("got %v", got)
	}
	Catch(func() {}).Again() // nothing to hand over
}
