package caddygroupcache

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

// The process tells what happens to the log and to the events app of whatever config is
// running.

// Events that the groupcache app emits through Caddy's events app.
const (
	eventJoined    = "member_joined"
	eventLeft      = "member_left"
	eventDied      = "member_died"
	eventDegraded  = "peer_degraded"
	eventRecovered = "peer_recovered"
	eventPurged    = "purged"
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

// events hands what happens to the events app, on a goroutine of its own: its
// handlers may take their time, and whoever tells of an event must not wait. A
// config's events app takes none before all of the config has started, so until
// the first one has, events wait.
type events struct {
	queue   chan event
	started chan struct{} // gets a value for each config that has started
	current atomic.Pointer[emitter]
}

func newEvents() *events {
	return &events{queue: make(chan event, maxEvents), started: make(chan struct{}, 1)}
}

// emit never waits. It does nothing on nil.
func (e *events) emit(name string, data map[string]any) {
	if e == nil {
		return
	}
	select {
	case e.queue <- event{name, data}:
	default:
	}
}

// run emits events until ctx ends.
func (e *events) run(ctx context.Context) {
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
	events  *events
	runs    func() // told too
}

// Handle takes the event "started" of Caddy itself.
func (s starter) Handle(context.Context, caddy.Event) error {
	s.events.current.Store(&s.emitter)
	s.runs()
	select {
	case s.events.started <- struct{}{}:
	default: // run has not looked since the last one
	}
	return nil
}

// A stopper is told that a config begins to stop, and notes how long its requests may take.
type stopper struct {
	ctx     caddy.Context
	process *process
}

// Handle takes the event "stopping" of Caddy itself.
func (s stopper) Handle(context.Context, caddy.Event) error {
	s.process.stopBy.Store(nil)
	if app, err := s.ctx.AppIfConfigured("http"); err == nil {
		if grace := time.Duration(app.(*caddyhttp.App).GracePeriod); grace > 0 {
			s.process.stopBy.Store(new(time.Now().Add(grace)))
		}
	}
	return nil
}

// subscribe has the process's events go to a config's events app as soon as the
// config has started, and tells the process when its requests begin and end.
func (p *process) subscribe(ctx caddy.Context) error {
	app, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	to := app.(*caddyevents.App)
	return errors.Join(to.On("started", starter{emitter{ctx, to}, p.events, p.configRuns}), to.On("stopping", stopper{ctx, p}))
}

// member tells of a member that comes or goes.
func (e *events) member(was, is gossip.Member) {
	name := ""
	switch {
	case is.Self:
		return
	case is.Present() && !was.Present():
		name = eventJoined
	case was.Present() && is.State == gossip.StateLeft:
		name = eventLeft
	case was.Present() && is.State == gossip.StateDead:
		name = eventDied
	default:
		return
	}
	e.emit(name, map[string]any{"member": is.Name, "gossip": is.Gossip, "peers": is.Peers})
}

// purged tells of a purge that this node has applied.
func (e *events) purged(one store.Purge) {
	named := make(map[store.Kind][]string)
	for _, s := range one.Selectors {
		named[s.Kind] = append(named[s.Kind], s.Value)
	}
	e.emit(eventPurged, map[string]any{
		"id": one.ID.String(), "group": one.Group, "soft": one.Soft, "all": named[store.All] != nil,
		"urls": named[store.URL], "prefixes": named[store.Prefix], "hosts": named[store.Host], "tags": named[store.Tag],
	})
}

// Above the level debug no log line has a key, a URL or a tag.

// runningLog is the log of whatever config is running: what outlives a reload
// must not go on writing to the files of the config before.
type runningLog struct {
	p      *process
	fields []zapcore.Field
}

// logger returns a logger that follows the running config.
func (p *process) logger() *zap.Logger { return zap.New(runningLog{p: p}) }

func (l runningLog) core() zapcore.Core {
	if a := l.p.app.Load(); a != nil && a.logger != nil {
		return a.logger.Core()
	}
	return zapcore.NewNopCore()
}

// Enabled reports whether the running config logs a level.
func (l runningLog) Enabled(level zapcore.Level) bool { return l.core().Enabled(level) }

// With returns the log with fields added to each line.
func (l runningLog) With(fields []zapcore.Field) zapcore.Core {
	l.fields = append(l.fields[:len(l.fields):len(l.fields)], fields...)
	return l
}

// Check has the running config's log write a line if it wants it.
func (l runningLog) Check(line zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if a := l.p.app.Load(); a != nil && a.logger != nil {
		line.LoggerName = a.logger.Name()
	}
	return l.core().With(l.fields).Check(line, to)
}

// Write is not called: Check names the core that writes.
func (l runningLog) Write(line zapcore.Entry, fields []zapcore.Field) error {
	return l.core().With(l.fields).Write(line, fields)
}

// Sync flushes the running config's log.
func (l runningLog) Sync() error { return l.core().Sync() }

// logPurge writes the line of a purge that another node has asked for. The node
// that was asked itself writes one that says who has acknowledged it.
func logPurge(logger *zap.Logger, one store.Purge) {
	logger.Info("purged for another node", zap.String("id", one.ID.String()), zap.String("group", one.Group),
		zap.Bool("soft", one.Soft), zap.Object("named", kindCounts(one.Selectors)))
}

// kindCounts says of how many of each kind selectors name, and not what.
type kindCounts []store.Selector

// MarshalLogObject writes a number for each kind that is there.
func (s kindCounts) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	var counts [store.KindCount]int
	for _, one := range s {
		counts[one.Kind]++
	}
	for kind, n := range counts {
		if n > 0 && store.Kind(kind) != store.OfKey { // these only accompany others
			enc.AddInt(store.Kind(kind).String(), n)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyevents.Handler     = starter{}
	_ caddyevents.Handler     = stopper{}
	_ zapcore.Core            = runningLog{}
	_ zapcore.ObjectMarshaler = kindCounts{}
)
