package routes

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/fastcgi"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
)

// transportOf returns the settings of a reverse proxy's transport by which the response can
// differ and of which an upstream's Vary can't tell.
func transportOf(proxy *reverseproxy.Handler) any {
	t, ok := proxy.Transport.(*fastcgi.Transport)
	if !ok {
		return proxy.Transport
	}
	settings := []string{t.Root}
	for _, value := range t.EnvVars {
		if inbound.TellsClients(value) {
			settings = append(settings, value)
		}
	}
	return settings
}

// statusesOf returns the statuses that replace_status gives responses.
func statusesOf(lists []caddyhttp.ResponseHandler) (all []caddyhttp.WeakString) {
	for _, one := range lists {
		all = append(all, one.StatusCode)
	}
	return all
}

// notInKey returns the placeholders in settings that say more than the key has.
func notInKey(settings any) []string { return inbound.NotInKey(textOf(settings)) }

// textOf returns settings as text, with those of the modules in them.
func textOf(settings any) string {
	var b strings.Builder
	for _, one := range append([]any{settings}, hidden(reflect.ValueOf(settings), nil)...) {
		if text, err := json.Marshal(one); err == nil { // else nothing of it has come from a config
			b.Write(text)
		}
	}
	return b.String()
}

// hidden returns the modules in settings, at any depth, among them those that JSON leaves
// out: Caddy forgets the text from which a module was made.
func hidden(v reflect.Value, all []any) []any {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return all
		}
		if v.Kind() == reflect.Pointer && v.Type().Implements(moduleType) {
			m := reflect.NewAt(v.Type().Elem(), v.UnsafePointer()).Interface()
			if slices.Contains(all, m) {
				return all
			}
			all = append(all, m)
		} else if v.Kind() == reflect.Pointer {
			return all // of a module's own workings
		}
		return hidden(v.Elem(), all)
	case reflect.Slice, reflect.Array:
		switch v.Type().Elem().Kind() {
		case reflect.Interface, reflect.Pointer, reflect.Slice, reflect.Struct:
			for i := range v.Len() {
				all = hidden(v.Index(i), all)
			}
		}
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Interface {
			for _, key := range v.MapKeys() {
				all = hidden(v.MapIndex(key), all)
			}
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[caddy.Context]() || !strings.Contains(v.Type().PkgPath(), ".") { // above the module, or of the standard library
			return all
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() || v.Field(i).Kind() != reflect.Map { // what changes while requests are served
				all = hidden(v.Field(i), all)
			}
		}
	}
	return all
}

var moduleType = reflect.TypeFor[caddy.Module]()

// nameOfMatcher tells a matcher of Caddy's from others, on all nodes. Matchers of other
// modules may have settings that don't show; the place of the cache tells them apart.
func (s *surroundings) nameOfMatcher(m any) string {
	settings, _ := json.Marshal(m)
	of := reflect.TypeOf(m)
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	s.foreign = s.foreign || !strings.HasPrefix(of.PkgPath(), "github.com/caddyserver/caddy/v2/")
	return moduleID(m) + " " + string(settings)
}

func moduleID(m any) string {
	if m, ok := m.(caddy.Module); ok {
		return string(m.CaddyModule().ID)
	}
	return fmt.Sprintf("%T", m)
}
