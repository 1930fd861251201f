package caddygroupcache

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

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
			to.app.Emit(to.ctx, one.name, one.data)
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
}

// Handle takes the event "started" of Caddy itself.
func (s starter) Handle(context.Context, caddy.Event) error {
	s.events.current.Store(&s.emitter)
	poke(s.events.started)
	return nil
}

// subscribe has the process's events go to a config's events app as soon as the
// config has started.
func (e *events) subscribe(ctx caddy.Context) error {
	app, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	to := app.(*caddyevents.App)
	return to.On("started", starter{emitter{ctx, to}, e})
}

// memberEvent tells of a member that comes or goes.
func (p *process) memberEvent(was, is member) {
	name := ""
	switch {
	case is.Self:
		return
	case is.present() && !was.present():
		name = eventJoined
	case was.present() && is.State == stateLeft:
		name = eventLeft
	case was.present() && is.State == stateDead:
		name = eventDied
	default:
		return
	}
	p.events.emit(name, map[string]any{"member": is.Name, "gossip": is.Gossip, "peers": is.Peers})
}

// purgeEvent tells of a purge that this node has applied.
func (p *process) purgeEvent(one store.Purge) {
	named := make(map[store.Kind][]string)
	for _, s := range one.Selectors {
		named[s.Kind] = append(named[s.Kind], s.Value)
	}
	p.events.emit(eventPurged, map[string]any{
		"id": purgeID(one.ID), "group": one.Group, "soft": one.Soft, "all": named[store.All] != nil,
		"urls": named[store.URL], "prefixes": named[store.Prefix], "hosts": named[store.Host], "tags": named[store.Tag],
	})
}

// Interface guards
var _ caddyevents.Handler = starter{}
