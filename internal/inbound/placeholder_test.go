package inbound

import (
	"slices"
	"testing"
)

func TestPlaceholdersThatTheKeyHas(t *testing.T) {
	text := `{"uri":"/t/{http.request.header.X-Tenant}{http.request.uri.path}","to":["{http.request.host}","{tenant}"],"root":"{http.vars.root}","at":"{http.reverse_proxy.status_code}","env":"{env.HOME}","ip":"{http.request.remote.host}","proto":"{http.request.proto}"}`
	want := []string{"{http.request.header.X-Tenant}", "{tenant}", "{http.request.remote.host}", "{http.request.proto}"}
	if got := NotInKey(text); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, name := range []string{
		"{http.request.cookie.a+b}", "{http.request.remote.host/24,32}", "{http.vars.a name}", "{env}", "{time-zone}", "{file}", "{http.vars.root-of}",
	} {
		if got := NotInKey(`{"body":"for ` + name + `!"}`); !slices.Equal(got, []string{name}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, text := range []string{"{http.request.duration_ms}", "{http.request.uri_escaped}", "{http.request.host.labels.1}", "{file./etc/hostname}", "{http.error.status_code}", "body { color: red }"} {
		if got := NotInKey(text); len(got) > 0 {
			t.Errorf("%s: %q", text, got)
		}
	}
	for text, want := range map[string]bool{
		"{http.request.header.X-User}": true, "user {http.auth.user.id}": true, "{http.reverse_proxy.header.Remote-User}": true,
		"{http.request.remote.host}": false, "{http.request.uuid}": false, "constant": false, "{http.vars.client_ip}": false, "{http.request.remote.host/16}": false,
		"{http.vars.tenant}": true, "{http.geoip.country}": true, "{tenant}": true, "{http.request.tls.client.subject}": true, "{http.regexp.1}": true,
	} {
		if got := TellsClients(text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
