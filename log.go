package caddygroupcache

import (
	"encoding/hex"
	"net/http"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

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
func (p *process) logPurge(one store.Purge) {
	p.logger().Info("purged for another node", zap.String("id", purgeID(one.ID)), zap.String("group", one.Group),
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

// logDecision writes what became of a request, for those who log at debug.
func (h *Handler) logDecision(r *http.Request, status cacheStatus, fwd, detail string, stored bool) {
	if !h.logger.Core().Enabled(zap.DebugLevel) {
		return
	}
	h.writeDecision(r, status, fwd, detail, stored)
}

// writeDecision is apart because zap takes much of the stack even for a line that
// is not written.
func (h *Handler) writeDecision(r *http.Request, status cacheStatus, fwd, detail string, stored bool) {
	line := h.logger.Check(zap.DebugLevel, "decided")
	if line == nil {
		return
	}
	fields := []zap.Field{
		zap.String("group", h.Group), zap.String("method", r.Method), zap.String("url", urlOf(r)),
		zap.Any("status", statusNames[status]), zap.String("fwd", fwd), zap.String("detail", detail), zap.Bool("stored", stored),
	}
	if a, ok := h.addressOf(r, fieldsOf(r.Header), requestURI(r)); ok {
		fields = append(fields, zap.String("key", hex.EncodeToString(a.key[:])))
	}
	line.Write(fields...)
}

// Interface guards
var (
	_ zapcore.Core            = runningLog{}
	_ zapcore.ObjectMarshaler = kindCounts{}
)
