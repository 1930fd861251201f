// Package events tells what happens in a process to the events app and the log of whatever
// config is running.
package events

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Events that the groupcache app emits through Caddy's events app.
const (
	joined    = "member_joined"
	left      = "member_left"
	died      = "member_died"
	Degraded  = "peer_degraded"
	Recovered = "peer_recovered"
	purged    = "purged"
)

// maxEvents bounds the events that wait for slow handlers; more are lost.
const maxEvents = 256

// An event is one that waits to be emitted.
type event struct {
	name string
	data map[string]any
}

// An emitter is the events app of a config, in that config's context.
type emitter struct {
	ctx caddy.Context
	app *caddyevents.App
}

// Events hands what happens to the events app, on a goroutine of its own: its
// handlers may take their time, and the caller of Emit must not wait. A
// config's events app takes none before all of the config has started, so until
// the first one has, events wait.
type Events struct {
	queue   chan event
	started chan struct{} // gets a value for each config that has started
	current atomic.Pointer[emitter]
}

// New returns Events of a process.
func New() *Events {
	return &Events{queue: make(chan event, maxEvents), started: make(chan struct{}, 1)}
}

// Emit tells of an event. It never waits. It does nothing on nil.
func (e *Events) Emit(name string, data map[string]any) {
	if e == nil {
		return
	}
	select {
	case e.queue <- event{name, data}:
	default:
	}
}

// Run emits events until ctx ends.
func (e *Events) Run(ctx context.Context) {
	for e.current.Load() == nil {
		select {
		case <-e.started:
		case <-ctx.Done():
			return
		}
	}
	for {
		select {
		case one := <-e.queue:
			to := e.current.Load()
			guard.Run(func() { to.app.Emit(to.ctx, one.name, one.data) })
		case <-ctx.Done():
			return
		}
	}
}

// A starter is told that a config has started, and makes its events app the one
// that events go to.
type starter struct {
	emitter emitter
	events  *Events
	runs    func() // told too
}

// Handle takes the event "started" of Caddy itself.
func (s starter) Handle(context.Context, caddy.Event) error {
	s.events.current.Store(&s.emitter)
	s.runs()
	select {
	case s.events.started <- struct{}{}:
	default: // Run has not looked since the last one
	}
	return nil
}

// A stopper is told that a config begins to stop, and tells how long its requests may take.
type stopper struct {
	ctx   caddy.Context
	stops func(grace time.Duration)
}

// Handle takes the event "stopping" of Caddy itself.
func (s stopper) Handle(context.Context, caddy.Event) error {
	grace := time.Duration(0)
	if app, err := s.ctx.AppIfConfigured("http"); err == nil {
		if site := app.(*caddyhttp.App); site.GracePeriod > 0 {
			grace = time.Duration(site.ShutdownDelay + site.GracePeriod) // which begins after the delay
		}
	}
	s.stops(grace)
	return nil
}

// Subscribe has events go to a config's events app as soon as the config has started. runs
// is called then, and stops when the config begins to stop, with the time that its requests
// have to end; 0: as long as they take.
func (e *Events) Subscribe(ctx caddy.Context, runs func(), stops func(grace time.Duration)) error {
	app, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	to := app.(*caddyevents.App)
	return errors.Join(to.On("started", starter{emitter{ctx, to}, e, runs}), to.On("stopping", stopper{ctx, stops}))
}

// Member tells of a member that comes or goes.
func (e *Events) Member(was, is gossip.Member) {
	name := ""
	switch {
	case is.Self:
		return
	case is.Present() && !was.Present():
		name = joined
	case was.Present() && is.State == gossip.StateLeft:
		name = left
	case was.Present() && is.State == gossip.StateDead:
		name = died
	default:
		return
	}
	e.Emit(name, map[string]any{"member": is.Name, "gossip": is.Gossip, "peers": is.Peers})
}

// Purged tells of a purge that this node has applied.
func (e *Events) Purged(one store.Purge) {
	named := make(map[store.Kind][]string)
	for _, s := range one.Selectors {
		named[s.Kind] = append(named[s.Kind], s.Value)
	}
	e.Emit(purged, map[string]any{
		"id": one.ID.String(), "group": one.Group, "soft": one.Soft, "all": named[store.All] != nil,
		"urls": named[store.URL], "prefixes": named[store.Prefix], "hosts": named[store.Host], "tags": named[store.Tag],
	})
}

// LogPurge writes the line of a purge that another node has asked for. The node
// that was asked itself writes one that names the nodes which have acknowledged it.
func LogPurge(logger *zap.Logger, one store.Purge) {
	logger.Info("purged for another node", zap.String("id", one.ID.String()), zap.String("group", one.Group),
		zap.Bool("soft", one.Soft), zap.Object("named", KindCounts(one.Selectors)))
}

// KindCounts says of how many of each kind selectors name, and not what.
type KindCounts []store.Selector

// MarshalLogObject writes a number for each kind that is there.
func (s KindCounts) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	var counts [store.KindCount]int
	for _, one := range s {
		counts[one.Kind]++
	}
	for kind, n := range counts {
		if n > 0 && store.Kind(kind) != store.OfKey && store.Kind(kind) != store.Group { // these only accompany others
			enc.AddInt(store.Kind(kind).String(), n)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyevents.Handler     = starter{}
	_ caddyevents.Handler     = stopper{}
	_ zapcore.ObjectMarshaler = KindCounts{}
)
