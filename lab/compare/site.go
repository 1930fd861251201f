package main

import (
	"fmt"
	"slices"
	"strings"
)

// A shape says where the cache stands among the site's handlers.
type shape int

const (
	sorted   shape = iota // Caddy sorts
	routed                // all in one route block, in its order
	handled               // all in one handle block, sorted
	sitewide              // the cache in front of handle blocks
	numShapes
)

// A composition is one site, with what its upstream does and what is asked of it.
type composition struct {
	seed     uint64
	shape    shape
	elements []*element
	requests []request
}

// compose draws a composition. wanted says whether elements of a known case are drawn.
func compose(seed uint64, all []*element, requests int, wanted func(known int) bool) *composition {
	c := &composition{seed: seed, shape: shape(draw(seed, "shape") % uint64(numShapes))}
	for _, e := range all {
		chance := e.chance
		if chance == 0 {
			chance = 120
		}
		if e.known != 0 && !wanted(e.known) || e.ordered && c.shape != routed || draw(seed, e.name)%1000 >= uint64(chance) {
			continue
		}
		if e.but != "" && slices.ContainsFunc(c.elements, func(other *element) bool { return strings.HasPrefix(other.name, e.but) }) {
			continue
		}
		c.elements = append(c.elements, e)
	}
	c.requests = c.drawRequests(requests)
	return c
}

func (c *composition) has(flag string) bool {
	return slices.ContainsFunc(c.elements, func(e *element) bool { return slices.Contains(e.flags, flag) })
}

func (c *composition) any(is func(*element) bool) bool { return slices.ContainsFunc(c.elements, is) }

// lines joins one part of all elements.
func (c *composition) lines(part func(*element) string) string {
	var b strings.Builder
	for _, e := range c.elements {
		if text := part(e); text != "" {
			b.WriteString(text + "\n")
		}
	}
	return b.String()
}

// matchers returns the named matchers, each once: a guard may stand on both sides of the
// cache.
func (c *composition) matchers() string {
	var all []string
	for _, e := range c.elements {
		if e.matchers != "" && !slices.Contains(all, e.matchers) {
			all = append(all, e.matchers)
		}
	}
	return strings.Join(append(all, ""), "\n")
}

// at returns the endpoint on another address of this machine, where another node is.
func (e endpoint) at(address string) endpoint {
	_, port, _ := strings.Cut(e.listen, ":")
	e.listen = address + ":" + port
	return e
}

// An endpoint is where one of a lane's sites listens, and the upstream behind it.
type endpoint struct {
	listen   string // host:port
	upstream string
	cached   bool
	second   bool
}

// global returns the global options beside those of the admin endpoint and the app.
func (c *composition) global() string {
	return "grace_period 1s\n\tlog {\n\t\toutput discard\n\t}\n\tservers {\n\t\t" + c.lines(func(e *element) string { return e.servers }) + "\n\t}"
}

// caddyfile returns the config of a Caddy that is not in a cluster.
func (c *composition) caddyfile(host, root string, ends []endpoint) string {
	return "{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tgroupcache {\n\t\tcache_size 64MiB\n\t}\n\t" + c.global() + "\n}\n" + c.sites(host, root, ends)
}

// sites returns the sites of both lanes, for one host name.
func (c *composition) sites(host, root string, ends []endpoint) string {
	var b strings.Builder
	for _, end := range ends {
		if end.second && !c.any(func(e *element) bool { return e.second != "" }) {
			continue
		}
		fill := c.fillers(end)
		address, port, _ := strings.Cut(end.listen, ":")
		// A named route belongs to all sites, so each endpoint has its own.
		rename := strings.NewReplacer("&(named)", "&(named"+port+")", " named\n", " named"+port+"\n")
		top := c.lines(func(e *element) string { return e.top })
		fmt.Fprintf(&b, "%shttp://%s:%s {\n\tbind %s\n\troot * %s\n%s}\n", rename.Replace(fill.Replace(top)), host, port, address, root, rename.Replace(fill.Replace(c.body())))
	}
	return b.String()
}

// fillers replaces what differs between site and twin.
func (c *composition) fillers(end endpoint) *strings.Replacer {
	cache := ""
	if end.cached {
		options := c.lines(func(e *element) string { return e.cache })
		if end.second {
			if other := c.lines(func(e *element) string { return e.second }); !strings.Contains(other, "same") {
				options = other
			}
		}
		cache = "groupcache {\n" + options + "}"
	}
	proxy := c.lines(func(e *element) string { return e.proxy })
	if end.second {
		proxy += "header_up X-Site second\n"
	}
	upstream := fmt.Sprintf("reverse_proxy %s {\n%s}", end.upstream, proxy)
	return strings.NewReplacer("%cache", cache, "%upstream", upstream, "%auth", end.upstream)
}

// body returns what is between a site's braces.
func (c *composition) body() string {
	before, behind := c.lines(func(e *element) string { return e.before }), c.lines(func(e *element) string { return e.behind })
	text := c.matchers()
	switch c.shape {
	case routed:
		text += "route {\n" + before + "%cache\n" + behind + "%upstream\n}\n"
	case handled:
		text += "handle {\n" + before + behind + "%cache\n%upstream\n}\n"
	case sitewide:
		text += before + "%cache\nhandle /p/* {\n" + behind + "%upstream\n}\nhandle {\n" + behind + "%upstream\n}\n"
	default:
		text += before + behind + "%cache\n%upstream\n"
	}
	if errors := c.lines(func(e *element) string { return e.errors }); errors != "" {
		text += "handle_errors {\n" + errors + "}\n"
	}
	return text
}

// describe returns the site alone, as a user would write it.
func (c *composition) describe() string {
	var names, flags []string
	for _, e := range c.elements {
		names = append(names, e.name)
		flags = append(flags, e.flags...)
	}
	site := c.sites("site.test", "/srv", []endpoint{
		{listen: "127.0.0.1:8080", upstream: "127.0.0.1:9000", cached: true},
		{listen: "127.0.0.1:8081", upstream: "127.0.0.1:9000", cached: true, second: true},
	})
	depth, indented := 0, new(strings.Builder)
	for line := range strings.Lines(site) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if line == "}" {
			depth--
		}
		fmt.Fprintf(indented, "    %s%s\n", strings.Repeat("  ", max(depth, 0)), line)
		if strings.HasSuffix(line, "{") {
			depth++
		}
	}
	return fmt.Sprintf("  elements: %s\n  upstream: %s\n%s", strings.Join(names, ", "), strings.Join(flags, ", "), indented)
}
