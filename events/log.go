package events

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Above the level debug no log line has a key, a URL or a tag.

// runningLog is the log of whatever config is running: what outlives a reload
// must not go on writing to the files of the config before.
type runningLog struct {
	of     func() *zap.Logger // of the running config; nil: there is none
	fields []zapcore.Field
}

// NewLog returns a logger that writes to that of the running config.
func NewLog(running func() *zap.Logger) *zap.Logger { return zap.New(runningLog{of: running}) }

func (l runningLog) core() zapcore.Core {
	if logger := l.of(); logger != nil {
		return logger.Core()
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
	if logger := l.of(); logger != nil {
		line.LoggerName = logger.Name()
	}
	return l.core().With(l.fields).Check(line, to)
}

// Write is not called: Check names the core that writes.
func (l runningLog) Write(line zapcore.Entry, fields []zapcore.Field) error {
	return l.core().With(l.fields).Write(line, fields)
}

// Sync flushes the running config's log.
func (l runningLog) Sync() error { return l.core().Sync() }

// Interface guards
var _ zapcore.Core = runningLog{}
