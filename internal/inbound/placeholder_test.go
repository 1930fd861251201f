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
	for text, want := range map[string]bool{
		"{http.request.header.X-User}": true, "user {http.auth.user.id}": true, "{http.reverse_proxy.header.Remote-User}": true,
		"{http.request.remote.host}": false, "{http.request.uuid}": false, "constant": false,
	} {
		if got := TellsClients(text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
