package caddygroupcache

import (
	"fmt"
	"strings"
	"testing"
)

// TestWrongLaneIsRefused: the option express where the lane would leave something out.
func TestWrongLaneIsRefused(t *testing.T) {
	const cached = "groupcache {\n\t\texpress\n\t}\n"
	for name, test := range map[string]struct {
		server, site string
		want         []string // what the error must say
	}{
		"a handler in front":      {"", "header X-Any x\n\t" + cached, []string{"express", "handler headers", "in the way"}},
		"a handler of a route":    {"", "route {\n\trequest_header X-Any x\n\t" + cached + "}\n", []string{"handler headers"}},
		"another cache":           {"", "route {\n\tgroupcache\n\t" + cached + "}\n", []string{"handler groupcache"}},
		"a matcher":               {"", "@a header X-Any x\n\thandle @a {\n" + cached + "}\n", []string{"matcher header"}},
		"a placeholder":           {"", "@a path /{env.HOME}\n\thandle @a {\n" + cached + "}\n", []string{"matcher path"}},
		"a route in front":        {"", "route {\n@a not path /b\n\terror @a 404\n" + cached + "}\n", []string{"handler error"}},
		"access logs":             {"", "log\n\t" + cached, []string{"access logs"}},
		"a time-out":              {"timeouts {\n\tread_body 1s\n}\n", cached, []string{"read_timeout"}},
		"SNI":                     {"strict_sni_host on\n", cached, []string{"strict_sni_host"}},
		"a template":              {"", "groupcache {\n\texpress\n\tkey {path}\n}\n", []string{"key template"}},
		"an argument":             {"", "groupcache {\n\texpress on\n}\n", []string{"Caddyfile"}},
		"an argument of the lane": {"listener_wrappers {\ngroupcache fast\n}\n", cached, []string{"Caddyfile"}},
		"no lane":                 {"listener_wrappers {\nhttp_redirect\n}\n", cached, []string{"listener_wrappers", "groupcache"}},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefusal(t, laneConfig(t, test.server, test.site), test.want)
		})
	}
}

// TestLanesThatAreRight: what may stand around.
func TestLanesThatAreRight(t *testing.T) {
	const cached = "groupcache {\n\t\texpress\n\t}\n\trespond x\n"
	for name, site := range map[string]string{
		"plain":                    cached,
		"paths":                    "handle /a/* {\n" + cached + "}\nhandle {\nrespond y\n}\n",
		"a handler for some paths": "header /b/* X-Any x\n" + cached,
		"a root":                   "root * /srv\n" + cached,
		"encode":                   "encode\n" + cached,
	} {
		t.Run(name, func(t *testing.T) {
			if err := validate(t, laneConfig(t, "", site)); err != nil {
				t.Error(err)
			}
		})
	}
}

func laneConfig(t *testing.T, server, site string) string {
	if !strings.Contains(server, "listener_wrappers") {
		server += "listener_wrappers {\ngroupcache\n}\n"
	}
	return fmt.Sprintf("{\n\tstorage file_system %s\n\tservers {\n%s}\n}\nhttp://a.test:8080 {\n\t%s}\n", t.TempDir(), server, site)
}
