//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	exampleSecret = "XLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU="
	exampleToken  = "h1F1W5Zyq3tJm0eJk5v0xg2m9Qw7Xc4bLr8sNd6uYtA="
)

// exampleEnv is what the examples want in their environment.
func exampleEnv(t *testing.T) {
	t.Setenv("GROUPCACHE_SECRET", exampleSecret)
	t.Setenv("NODE_ADDRESS", "192.0.2.1")
	t.Setenv("PURGE_TOKEN", exampleToken)
}

func validate(t *testing.T, name string) {
	t.Helper()
	absolute, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	if out, exit := caddyCommand(t, "validate", "--adapter", "caddyfile", "--config", absolute); exit != 0 {
		t.Errorf("%s: %s", name, out[max(0, len(out)-1000):])
	}
}

// objects reads all documents of a YAML file.
func objects(t *testing.T, name string) (all []map[string]any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(readFile(t, name)))
	for {
		var one map[string]any
		err := d.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, one)
	}
}

// at returns what stands at a path of keys and indexes, or nil.
func at(v any, keys ...any) any {
	for _, key := range keys {
		switch k := key.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			s, _ := v.([]any)
			if k >= len(s) {
				return nil
			}
			v = s[k]
		}
	}
	return v
}

// list returns what stands at a path as a list, which may be empty.
func list(v any, keys ...any) []any {
	s, _ := at(v, keys...).([]any)
	return s
}
