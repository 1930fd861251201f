package storing

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Rule is what an operator says about some responses. Of several rules, the first that
// matches a response is the one about it. A rule changes what the cache sees of a response;
// the client that it was fetched for gets it as it came.
type Rule struct {
	Name    string
	Matches func(status int, response http.Header) bool
	TTL     time.Duration // 0: none
	Force   bool          // the TTL goes before what the response says
	Without []string      // canonical names of the fields that are not stored
	Tags    []string      // that are added
	NoStore bool
}

// ruleLabel begins a cache group (RFC 9875) that the entry of a response has, with the name
// of the rule about it: the rule is the same when a 304 renews the entry, though what it
// matched may not be stored. No response can name such a group, since names have no
// control characters.
const ruleLabel = ownGroup + "rule "

// RuleOf returns the name of the rule about a stored response, by its cache groups; "":
// none.
func RuleOf(groups []string) string {
	for _, group := range groups {
		if name, is := strings.CutPrefix(group, ruleLabel); is {
			return name
		}
	}
	return ""
}

// ruleAbout returns the rule about a response; nil: none.
func (p *Policy) ruleAbout(status int, response http.Header) *Rule {
	for i := range p.Rules {
		if p.Rules[i].Matches(status, response) {
			return &p.Rules[i]
		}
	}
	return nil
}

// Under returns the policy and the response as the rule has them that is about the
// response. Neither argument is changed.
func (p *Policy) Under(x rfc9111.Exchange) (*Policy, rfc9111.Exchange) {
	r := p.ruleAbout(x.Status, x.Response)
	if r == nil {
		return p, x
	}
	x.Response = r.seen(x.Response)
	if len(r.Tags) > 0 && len(p.Tags) > 0 {
		x.Response[p.Tags[0]] = append(slices.Clip(x.Response[p.Tags[0]]), strings.Join(r.Tags, ","))
	}
	return p.by(r, x.Status), x
}

// Explicit returns the policy for responses that are stored only with a freshness of their
// own.
func (p *Policy) Explicit() *Policy {
	own := *p
	own.TTL, own.Rules = nil, slices.Clone(p.Rules)
	for i := range own.Rules {
		own.Rules[i].TTL = 0
	}
	return &own
}

// seen returns a header without what the rule leaves out.
func (r *Rule) seen(response http.Header) http.Header {
	response = maps.Clone(response)
	for _, name := range r.Without {
		delete(response, name)
	}
	return response
}

// by returns the policy for responses of a status that a rule is about.
func (p *Policy) by(r *Rule, status int) *Policy {
	own := *p
	own.rule = r
	if r.TTL > 0 {
		own.TTL, own.ForceTTL = map[int]time.Duration{status: r.TTL}, r.Force
	}
	return &own
}

// Revalidated is rfc9111.Revalidated by the rule about the stored response, whose cache
// groups are given.
func (p *Policy) Revalidated(x rfc9111.Exchange, status int, stored http.Header, groups []string) (http.Header, rfc9111.Freshness, rfc9111.Reason) {
	r := p.ruleOfStored(x, status, stored, groups)
	switch {
	case r == nil:
		return rfc9111.Revalidated(x, status, stored, p.Options)
	case r.NoStore:
		return nil, rfc9111.Freshness{}, rfc9111.Rule
	}
	x.Response = r.seen(x.Response)
	return rfc9111.Revalidated(x, status, r.seen(stored), p.by(r, status).Options)
}

// Lent returns a stored entry as a validation updates it that makes it its client's alone
// (private, no-store): it answers that client, and is not stored. Nil: it can't be lent.
func (p *Policy) Lent(x rfc9111.Exchange, stale *store.Entry) *store.Entry {
	fields, _, why := p.Revalidated(x, stale.Status, stale.Header(), stale.Groups())
	if why != rfc9111.Private && why != rfc9111.NoStore || stale.Large() {
		return nil
	}
	lent, _ := stale.WithFreshness(fields, rfc9111.Freshness{Received: x.Received}, x.Sent)
	return lent
}

func (p *Policy) ruleOfStored(x rfc9111.Exchange, status int, stored http.Header, groups []string) *Rule {
	if r := p.ruleNamed(RuleOf(groups)); r != nil {
		return r
	}
	return p.ruleAbout(status, rfc9111.Refresh(stored, x.Response, p.Options))
}

// LeftOut returns the fields of a validation that are not stored, by themselves or by its
// rule: they are for the client alone whose request was validated.
func (p *Policy) LeftOut(x rfc9111.Exchange, status int, stored http.Header, groups []string) (apart http.Header) {
	apart = rfc9111.ForOneClient(x.Response, p.Options)
	if len(p.Rules) == 0 {
		return apart
	}
	r := p.ruleOfStored(x, status, stored, groups)
	if r == nil {
		return apart
	}
	for _, name := range r.Without {
		if lines := x.Response[name]; len(lines) > 0 {
			if apart == nil {
				apart = make(http.Header)
			}
			apart[name] = lines
		}
	}
	return apart
}

// ruleNamed returns the rule with a name; nil: the config has none.
func (p *Policy) ruleNamed(name string) *Rule {
	for i := range p.Rules {
		if p.Rules[i].Name == name {
			return &p.Rules[i]
		}
	}
	return nil
}

// Relabel returns the tags and groups of a renewed entry: those that came with its
// validation, or else those that it has, those of the rule about it, and the groups made here.
// few reports whether these are no more than other nodes take.
func (p *Policy) Relabel(tags, groups, hadTags, hadGroups []string) (ofTags, ofGroups []string, few bool) {
	name := RuleOf(hadGroups)
	if len(tags) == 0 {
		tags = hadTags
	} else if r := p.ruleNamed(name); r != nil {
		tags = sorted(append(slices.Clone(tags), r.Tags...))
	}
	if len(groups) == 0 {
		return tags, hadGroups, len(tags) <= rfc9111.MaxTags
	}
	for _, group := range hadGroups {
		if strings.HasPrefix(group, ownGroup) {
			groups = append(slices.Clip(groups), group)
		}
	}
	groups = sorted(groups)
	return tags, groups, max(len(tags), len(groups)) <= rfc9111.MaxTags
}

func sorted(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}
