//go:build race

package caddygroupcache

const raceDetector = true
