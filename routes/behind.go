package routes

import (
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/logging"
	maphandler "github.com/caddyserver/caddy/v2/modules/caddyhttp/map"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/tracing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
)

// Matchers and placeholders behind the cache are asked at the cache, for the key. There a
// request is still as the client sent it: what handlers between make of it doesn't show. So
// where something behind looks at what a handler has made, the key has all that this was
// made of.

// made is a request field, or a variable, that a handler behind the cache makes.
type made struct {
	name    string   // canonical, of a field; a * in it stands for anything
	of      []string // placeholders that the key may not have
	answers []string // placeholders of what an upstream has answered
}

// routeBehind takes in what a route behind the cache depends on.
func (s *surroundings) routeBehind(one caddyhttp.Route) {
	s.matchersOf(one.MatcherSets)
	for _, m := range s.leaves(one.MatcherSets, s.follows) {
		s.lookedAt(m)
	}
	for _, m := range s.leaves(one.MatcherSets, func(m any) bool { return !s.follows(m) }) {
		s.takeMade(placeholdersIn(m)) // which it compares with what follows
	}
	length, before := len(s.chain), len(s.rewritten)
	rewritten := slices.ContainsFunc(s.rewritten, func(group string) bool { return group == "" || group != one.Group })
	if !rewritten && !slices.ContainsFunc(s.leaves(one.MatcherSets, func(any) bool { return false }), s.looksAtMade) {
		s.chain = append(s.chain, one.MatcherSets)
	}
	s.behind(one.Handlers)
	s.chain = s.chain[:length]
	switch {
	case s.replies.ends(one):
		s.rewritten = s.rewritten[:before]
	case one.Group != "" && len(s.rewritten) > before: // no request comes to others of the group
		s.rewritten = append(s.rewritten[:before], one.Group)
	}
}

// looksAtMade reports whether a matcher behind the cache looks at what handlers between make.
func (s *surroundings) looksAtMade(m any) bool {
	text := textOf(m)
	return slices.ContainsFunc(s.made, func(one made) bool { return one.isNamed(text) })
}

// behind takes in what handlers behind the cache depend on.
func (s *surroundings) behind(handlers []caddyhttp.MiddlewareHandler) {
	for _, handler := range handlers {
		s.listsBehind(handler)
		if moduleID(handler) == moduleID(s.cache.Handler) {
			continue
		}
		var settings, told any = handler, nil // told: what only an upstream gets
		switch handler := handler.(type) {
		case *caddyhttp.Subroute, *caddyhttp.Invoke, *logging.LogAppend, *tracing.Tracing:
			continue
		case *intercept.Intercept:
			settings = statusesOf(handler.HandleResponse)
		case *reverseproxy.Handler: // what it tells the upstream is the upstream's to say in Vary
			all := []any{handler.Upstreams, handler.DynamicUpstreams, handler.Rewrite, transportOf(handler), statusesOf(handler.HandleResponse)}
			if handler.Headers != nil {
				s.changedBy(handler.Headers.Request)
				all, told = append(all, handler.Headers.Response), handler.Headers.Request
			}
			settings = all
		case *headers.Handler:
			settings, told = handler.Response, handler.Request
			all := s.changedBy(handler.Request)
			s.made = append(s.made, all...)
			for _, one := range all {
				s.takeMade(strings.Join(one.of, " ")) // made of what was made
			}
		case *fileserver.FileServer:
			if handler.Browse != nil { // a list is sorted by these
				s.placeholders = append(s.placeholders, "{http.request.cookie.sort}", "{http.request.cookie.order}")
			}
		case *maphandler.Handler:
			for _, name := range handler.Destinations {
				s.made = append(s.made, made{name: strings.Trim(name, "{}")})
			}
		case *caddyhttp.VarsMiddleware:
			for name := range *handler {
				s.made = append(s.made, made{name: name})
			}
		}
		switch {
		case s.replies.asksWho(handler):
			s.guards = append(s.guards, slices.Clone(s.chain))
		case moduleID(handler) == "http.handlers.rewrite":
			s.rewritten = append(s.rewritten, "")
		}
		for _, p := range notInKey([]any{settings, told}) {
			if isOfRegexp(p) {
				s.kept = append(s.kept, strings.Trim(p, "{}"))
			}
		}
		for _, p := range inbound.OfResponse(textOf([]any{settings, told})) {
			s.responses = append(s.responses, strings.Trim(p, "{}"))
		}
		s.placeholders = append(s.placeholders, notInKey(settings)...)
		s.answers = append(s.answers, inbound.OfAnswers(textOf(settings))...)
		s.takeMade(placeholdersIn(settings))
	}
}

// listsBehind takes in the lists of routes of a handler behind the cache.
func (s *surroundings) listsBehind(handler caddyhttp.MiddlewareHandler) {
	before := s.answering
	switch handler := handler.(type) {
	case *reverseproxy.Handler:
		if before > 0 {
			s.second = append(s.second, handler)
		}
		s.answering++
	case *intercept.Intercept: // in place of what an upstream has answered
		s.answering++
	}
	s.eachList(handler, func(routes caddyhttp.RouteList) {
		for _, one := range routes {
			s.routeBehind(one)
		}
	})
	s.answering = before
}

// Guarded reports whether a request has to pass an authentication behind the cache, as far as
// the matchers in front of that can be asked at the cache. None of its responses may be stored,
// nor may it get any that is: without the cache its client would have been asked first.
func (a *Route) Guarded(r *http.Request) bool {
	return a != nil && slices.ContainsFunc(a.guards, func(chain []caddyhttp.MatcherSets) bool {
		return !slices.ContainsFunc(chain, func(sets caddyhttp.MatcherSets) bool {
			ok, err := sets.AnyMatchWithError(r)
			return !ok && err == nil
		})
	})
}

// placeholdersIn returns the placeholders in settings that say more than the key has.
func placeholdersIn(settings any) string { return strings.Join(notInKey(settings), " ") }

// lookedAt takes in all that a matcher behind the cache may look at, if handlers between
// make some of it. What the matcher says at the cache tells nothing then: not even of the
// rest, where it looks at several things.
func (s *surroundings) lookedAt(m any) {
	text := textOf(m)
	if !s.takeMade(text) {
		return
	}
	s.placeholders = append(s.placeholders, inbound.NotInKey(text)...)
	for _, word := range wordsOf(text) { // to take what is no field for one costs nothing: no client sends it
		s.fields = append(s.fields, http.CanonicalHeaderKey(word))
		if strings.Contains(moduleID(m)+text, "vars") {
			s.placeholders = append(s.placeholders, "{http.vars."+word+"}")
		}
	}
	if strings.Contains(text, "_ip(") { // in an expression
		s.placeholders = append(s.placeholders, "{http.request.remote.host}", "{http.vars.client_ip}")
	}
}

// takeMade takes in what that was made of which a text names. It reports whether the text
// names something made.
func (s *surroundings) takeMade(text string) (found bool) {
	for _, one := range s.made {
		if text == "" || !one.isNamed(text) {
			continue
		}
		found = true
		s.placeholders, s.answers = append(s.placeholders, one.of...), append(s.answers, one.answers...)
		s.fields = append(s.fields, one.name) // what it was may be part of it
	}
	return found
}

// isNamed reports whether a text has the name as a word.
func (one *made) isNamed(text string) bool {
	if bare := strings.Trim(one.name, "*"); bare != one.name || len(wordsOf(bare)) != 1 {
		return strings.Contains(strings.ToLower(text), strings.ToLower(bare))
	}
	return slices.ContainsFunc(wordsOf(text), func(word string) bool { return strings.EqualFold(word, one.name) })
}

func wordsOf(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c != '-' && c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) })
}

// anyField is the name of a field that a config doesn't tell.
const anyField = "*"

// changedBy takes in the request fields that are set by what is not in the key, and returns
// what has become of them.
func (s *surroundings) changedBy(set *headers.HeaderOps) (all []made) {
	eachChange(set, func(name, text string) {
		one := made{name: http.CanonicalHeaderKey(name), answers: inbound.OfAnswers(text)}
		one.of = slices.DeleteFunc(inbound.NotInKey(text), s.cache.hasField)
		if strings.Contains(name, "{") {
			one.name = anyField
		}
		switch {
		case one.name == anyField || one.name == "Host" || inbound.OverridesURL(one.name):
			// An upstream answers by these, and names none of them in Vary.
			s.placeholders, s.answers = append(s.placeholders, one.of...), append(s.answers, one.answers...)
			s.takeMade(strings.Join(one.of, " "))
		case len(one.of) > 0:
			s.changed = append(s.changed, one.name)
		case len(one.answers) > 0:
			s.changedByAnswers = append(s.changedByAnswers, one.name)
		}
		all = append(all, one)
		s.carried = slices.Concat(s.carried, one.of, one.answers)
	})
	return all
}

// hasField reports whether a placeholder is that of a field which the default key has.
func (c *Cache) hasField(placeholder string) bool {
	name, is := strings.CutPrefix(strings.TrimSuffix(placeholder, "}"), "{http.request.header.")
	name = http.CanonicalHeaderKey(name)
	return is && !c.Template && name != "Forwarded" && inbound.OverridesURL(name) // of Forwarded the key has a part
}

// eachChange calls do with the name of each field that a handler changes, and the text that
// says how.
func eachChange(set *headers.HeaderOps, do func(name, text string)) {
	if set == nil {
		return
	}
	for _, fields := range []http.Header{set.Set, set.Add} {
		for name, values := range fields {
			do(name, name+" "+strings.Join(values, " "))
		}
	}
	for name, all := range set.Replace {
		for _, one := range all {
			do(name, name+" "+one.Search+" "+one.SearchRegexp+" "+one.Replace)
		}
	}
	for _, name := range set.Delete {
		do(name, name)
	}
}
