package caddygroupcache

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var update = flag.Bool("update", false, "write what the adapter makes into the golden files")

// A golden file is a Caddyfile, a line of dashes, and the JSON it becomes.
func TestCaddyfileBecomesJSON(t *testing.T) {
	files, err := filepath.Glob("testdata/*.caddytest")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files:", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			const line = "\n----------\n"
			input, want, _ := strings.Cut(string(content), line)
			adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": file})
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, adapted, "", "\t"); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(input+line+got.String()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != strings.TrimSpace(want) {
				t.Errorf("got %s", got.String())
			}
		})
	}
}

// validate does what caddy validate does.
func validate(t *testing.T, caddyfile string) error {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(&config)
}

// Caddyfiles with one option in its place; the first %s is a folder for what Caddy stores.
const (
	globalOption    = "{\n\tstorage file_system %s\n\tgroupcache {\n\t\t%s\n\t}\n}\n:8080 {\n\tgroupcache\n}\n"
	directiveOption = "{\n\tstorage file_system %s\n}\n:8080 {\n\tgroupcache {\n\t\t%s\n\t}\n}\n"
	purgeAPIOption  = "{\n\tstorage file_system %s\n}\n:8080 {\n\tgroupcache_purge /purge {\n\t\t%s\n\t}\n}\n"
)

// wantRefusal fails the test unless a Caddyfile is refused with an error that says all
// of wants, and leaves no node behind.
func wantRefusal(t *testing.T, config string, wants []string) {
	t.Helper()
	err := validate(t, config)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if currentProcess() != nil {
		t.Error("a node is left behind")
	}
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	in := func(format string) func(string) string {
		return func(option string) string { return fmt.Sprintf(format, t.TempDir(), option) }
	}
	global, directive, api := in(globalOption), in(directiveOption), in(purgeAPIOption)
	const good = "XLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU="
	for name, test := range map[string]struct {
		config string
		want   []string // what the error must say
	}{
		"unknown global option":     {global("caches 3"), []string{"Caddyfile:4", "unknown option", "cache_size"}},
		"bad size":                  {global("cache_size many"), []string{"Caddyfile:4", "many", "512MiB"}},
		"no size":                   {global("cache_size"), []string{"Caddyfile:4"}},
		"too small a cache":         {global("cache_size 1KiB"), []string{"1.0 MiB"}},
		"bad address":               {global("gossip nowhere.example:7946"), []string{"Caddyfile:4", "IP address"}},
		"bad port":                  {global("gossip 127.0.0.1:99999"), []string{"Caddyfile:4", "65535"}},
		"bad peers":                 {global("peers x:y"), []string{"Caddyfile:4", "peers"}},
		"beyond loopback":           {global("gossip 10.0.0.1:7946"), []string{"10.0.0.1", "keygen", "insecure", "127.0.0.1"}},
		"peers beyond loopback":     {global("peers 10.0.0.1:8000"), []string{"10.0.0.1", "insecure"}},
		"any address to dial":       {global("gossip 0.0.0.0:7946\n\t\tinsecure"), []string{"advertise"}},
		"bad advertise":             {global("advertise a b c"), []string{"Caddyfile:4", "advertise"}},
		"advertise any address":     {global("advertise 0.0.0.0:1\n\t\tinsecure"), []string{"dial"}},
		"bad seed":                  {global("join http://x/"), []string{"Caddyfile:4", "DNS name"}},
		"no seed":                   {global("join"), []string{"Caddyfile:4", "join"}},
		"bad name":                  {global("name " + strings.Repeat("x", 256)), []string{"name", "too long"}},
		"short secret":              {global("secret c2hvcnQ="), []string{"keygen"}},
		"secret not in base64":      {global("secret correct-horse-battery-staple-correct-horse"), []string{"keygen"}},
		"passphrase in base64":      {global("secret Q29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZSwgYW5kIG9uZSBtb3Jl"), []string{"keygen"}},
		"too many secrets":          {global("secret " + strings.Join([]string{good, "a" + good[1:], "b" + good[1:], "c" + good[1:], "d" + good[1:]}, " ")), []string{"at most 4"}},
		"second secret is bad":      {global("secret " + good + " short"), []string{"secret 2", "keygen"}},
		"two directories":           {global("persist /a /b"), []string{"Caddyfile:4"}},
		"no such directory":         {global("persist {env.GROUPCACHE_TEST_UNSET}"), []string{"GROUPCACHE_TEST_UNSET"}},
		"argument to insecure":      {global("insecure yes"), []string{"Caddyfile:4"}},
		"argument to the option":    {"{\n\tgroupcache fast\n}\n", []string{"Caddyfile:2"}},
		"matcher of methods":        {"http://a.test {\n\t@reads method GET HEAD\n\tgroupcache @reads\n\trespond x\n}\n", []string{"Caddyfile:3", "method matcher", "PUT", "remove it"}},
		"matcher of two things":     {"http://a.test {\n\t@reads {\n\t\tpath /a\n\t\tmethod GET\n\t}\n\tgroupcache @reads\n\trespond x\n}\n", []string{"Caddyfile:6", "method matcher"}},
		"unknown option":            {directive("speed 9"), []string{"Caddyfile:6", "unknown option", "max_body_size"}},
		"bad ttl":                   {directive("ttl soon"), []string{"Caddyfile:6", "soon", "10m"}},
		"bad ttl status":            {directive("ttl 1m OK"), []string{"Caddyfile:6", "OK"}},
		"impossible ttl status":     {directive("ttl 1m 100"), []string{"100"}},
		"two ttl for a status":      {directive("ttl 1m 200 404\n\t\tttl 10s 404"), []string{"ttl 10s for status 404", "leave one of them out"}},
		"two ttl for all":           {directive("ttl 1m\n\t\tttl 10s"), []string{"ttl 10s", "leave one of them out"}},
		"bad query":                 {directive("query none"), []string{"Caddyfile:6", "ignore"}},
		"query ignore and only":     {directive("query ignore a\n\t\tquery only b"), []string{"exclude"}},
		"cookies ignore and only":   {directive("cookies ignore a\n\t\tcookies only b"), []string{"cookies", "exclude"}},
		"cookies of no name":        {directive("cookies ignore"), []string{"Caddyfile:6", "ignore <name or prefix*>"}},
		"query and key":             {directive("query sort\n\t\tkey {uri}"), []string{"query"}},
		"bad stale":                 {directive("stale always 1m"), []string{"Caddyfile:6", "while_revalidate"}},
		"stale after the fill":      {directive("stale after 1m"), []string{"stale after 1m0s", "fill_timeout 1m0s", "shorter"}},
		"bad duration":              {directive("peer_timeout 10"), []string{"Caddyfile:6", "10s"}},
		"max_body_size too large":   {directive("max_body_size 2TiB"), []string{"max_body_size", "1TiB"}},
		"negative duration":         {directive("fill_timeout -1s"), []string{"Caddyfile:6"}},
		"purge by everybody":        {directive("purge"), []string{"Caddyfile:7", "everybody", "token or from"}},
		"purge by GET":              {directive("purge PURGE get {\n\t\t\ttoken correct-horse-battery\n\t\t}"), []string{"means something else"}},
		"purge by small letters":    {directive("purge PURGE ban {\n\t\t\ttoken correct-horse-battery\n\t\t}"), []string{`"ban"`, "small letters", "BAN"}},
		"purge off":                 {directive("purge off {\n\t\t\ttoken correct-horse-battery\n\t\t}"), []string{`"off"`, "leave the option out"}},
		"purge by no method":        {directive("purge P,Q {\n\t\t\ttoken correct-horse-battery\n\t\t}"), []string{"no method"}},
		"short purge token":         {directive("purge {\n\t\t\ttoken short\n\t\t}"), []string{"at least 16", "keygen"}},
		"empty purge token":         {directive("purge {\n\t\t\ttoken {env.GROUPCACHE_TEST_UNSET}\n\t\t}"), []string{"GROUPCACHE_TEST_UNSET"}},
		"no purge token":            {directive("purge {\n\t\t\ttoken\n\t\t}"), []string{"Caddyfile:7", "token"}},
		"bad purge range":           {directive("purge {\n\t\t\tfrom localhost\n\t\t}"), []string{"localhost", "10.0.0.0/8"}},
		"purge range of both":       {directive("purge {\n\t\t\tfrom ::ffff:0.0.0.0/90\n\t\t}"), []string{"::ffff:0.0.0.0/90", "IPv4"}},
		"unknown option of purge":   {directive("purge {\n\t\t\tby bob\n\t\t}"), []string{"Caddyfile:7", "token, from"}},
		"purge API for everybody":   {api(""), []string{"Caddyfile:7", "everybody", "token or from", "authenticated"}},
		"unknown option of the API": {api("by bob"), []string{"Caddyfile:6", "group, token, from, authenticated"}},
		"argument to authenticated": {api("authenticated yes"), []string{"Caddyfile:6"}},
		"short token of the API":    {api("token short"), []string{"at least 16", "keygen"}},
		"bad range of the API":      {api("from localhost"), []string{"localhost", "10.0.0.0/8"}},
		"targeted nothing":          {directive("targeted"), []string{"Caddyfile:6", "CDN-Cache-Control"}},
		"targeted at no field":      {directive(`targeted "a b"`), []string{"Caddyfile:7", `"a b"`, "CDN-Cache-Control"}},
		"targeted at all caches":    {directive("targeted CDN-Cache-Control cache-control"), []string{"Cache-Control", "all caches", "CDN-Cache-Control"}},
		"targeted twice":            {directive("targeted CDN-Cache-Control\n\t\ttargeted cdn-cache-control"), []string{"Cdn-Cache-Control", "twice"}},
		"bad request_directives":    {directive("request_directives obey"), []string{"honor or ignore"}},
		"bad cache_status":          {directive(`cache_status "a b"`), []string{"cache_status"}},
		"too long a group":          {directive("group " + strings.Repeat("x", 65)), []string{"at most 64"}},
		"placeholder without value": {global("name {env.GROUPCACHE_TEST_UNSET}"), []string{"GROUPCACHE_TEST_UNSET"}},
	} {
		t.Run(name, func(t *testing.T) { wantRefusal(t, test.config, test.want) })
	}
}

// TestEmptyValuesAreRefused: an empty value would be the default, which the config does not ask for.
func TestEmptyValuesAreRefused(t *testing.T) {
	for _, option := range []string{"group", "key", "cache_status", "set_cookie", "max_body_size", "fill_timeout"} {
		t.Run(option, func(t *testing.T) {
			wantRefusal(t, fmt.Sprintf(directiveOption, t.TempDir(), option+` "{$GROUPCACHE_TEST_UNSET}"`), []string{"Caddyfile:6", option})
		})
	}
	for _, option := range []string{"gossip", "peers", "name", "cluster", "cache_size", "join", "secret"} {
		t.Run(option, func(t *testing.T) {
			wantRefusal(t, fmt.Sprintf(globalOption, t.TempDir(), option+` "{$GROUPCACHE_TEST_UNSET}"`), nil)
		})
	}
}

// TestNamesWithoutEffectAreRefused: what no field, parameter or cookie is called, and what is
// no pattern here.
func TestNamesWithoutEffectAreRefused(t *testing.T) {
	for option, want := range map[string][]string{
		"tags Cache-Tag,Surrogate-Key":   {`tags "Cache-Tag,Surrogate-Key"`, "response field"},
		`tags "Cache-Tag Surrogate-Key"`: {"response field", "spaces between"},
		"query ignore *_id":              {`query "*_id"`, "at the end"},
		"query only page*s":              {`query "page*s"`, "at the end"},
		"query ignore session=1":         {`query "session=1"`, `"="`},
		"query ignore a&b":               {`query "a&b"`, `"&"`},
		"cookies ignore _ga,_gid":        {`cookies "_ga,_gid"`, `","`},
		"cookies only lang;theme":        {`cookies "lang;theme"`, `";"`},
		"cookies ignore **":              {`cookies "**"`, "at the end"},
	} {
		t.Run(option, func(t *testing.T) {
			wantRefusal(t, fmt.Sprintf(directiveOption, t.TempDir(), option), append(want, "Caddyfile"))
		})
	}
	for _, option := range []string{"query ignore utm_* a[] a.b a,b", "query ignore *", "cookies only lang __Host-id wp-*", "tags xkey Cache-Tag"} {
		if err := validate(t, fmt.Sprintf(directiveOption, t.TempDir(), option)); err != nil {
			t.Errorf("%s: %v", option, err)
		}
	}
}

// TestWrongResponseBlocksAreRefused: each says where, what, and what is right.
func TestWrongResponseBlocksAreRefused(t *testing.T) {
	directive := func(option string) string { return fmt.Sprintf(directiveOption, t.TempDir(), option) }
	for name, test := range map[string]struct {
		config string
		want   []string
	}{
		"response of no matcher":     {directive("response @images {\n\t\t\tno_store\n\t\t}"), []string{"Caddyfile", "@images", "no such response matcher"}},
		"response without an @":      {directive("response images {\n\t\t\tno_store\n\t\t}"), []string{"Caddyfile:6", "@images header"}},
		"response that says nothing": {directive("response"), []string{"Caddyfile:6", "says nothing", "no_store"}},
		"response with a bad option": {directive("response {\n\t\t\tcache 1m\n\t\t}"), []string{"Caddyfile:7", "cache", "store_without"}},
		"response with a bad ttl":    {directive("response {\n\t\t\tttl 1m 200\n\t\t}"), []string{"Caddyfile:7", "ttl 10m force"}},
		"response without Vary":      {directive("response {\n\t\t\tstore_without vary\n\t\t}"), []string{"Caddyfile", "Vary", "made for others"}},
		"response without a target":  {directive("response {\n\t\t\tstore_without cdn-cache-control\n\t\t}"), []string{"Cdn-Cache-Control", "force"}},
		"response without a length":  {directive("response {\n\t\t\tstore_without Content-Length\n\t\t}"), []string{"Content-Length", "body"}},
		"response that sets tags":    {directive("response {\n\t\t\ttags page\n\t\t}"), []string{"Caddyfile:7", "tags +page"}},
		"response stored and not":    {directive("response {\n\t\t\tno_store\n\t\t\tttl 1m\n\t\t}"), []string{"nothing to do"}},
		"response named twice":       {directive("@a status 404\n\t\tresponse @a {\n\t\t\tttl 1m\n\t\t}\n\t\tresponse @a {\n\t\t\ttags +x\n\t\t}"), []string{"Caddyfile", "response @a", "two blocks", "no effect"}},
		"response after all":         {directive("@a status 404\n\t\tresponse {\n\t\t\tttl 1m\n\t\t}\n\t\tresponse @a {\n\t\t\tno_store\n\t\t}"), []string{"put it last"}},
	} {
		t.Run(name, func(t *testing.T) { wantRefusal(t, test.config, test.want) })
	}
}

// What could not start, or would not be found by others.
func TestWrongAddressesAreRefused(t *testing.T) {
	t.Setenv("GROUPCACHE_TEST_PORT", "2019")
	global := func(option string) string { return fmt.Sprintf(globalOption, t.TempDir(), option) }
	const good = "XLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU="
	for name, test := range map[string]struct {
		config string
		want   []string // what the error must say
	}{
		"gossip is peers":          {global("gossip 127.0.0.1:7946\n\t\tpeers 127.0.0.1:7946"), []string{"gossip 127.0.0.1:7946", "one address", "8000"}},
		"gossip is peers anywhere": {global("gossip 0.0.0.0:7946\n\t\tpeers 10.0.0.1:7946\n\t\tinsecure\n\t\tadvertise 10.0.0.1"), []string{"one address"}},
		"peers is a site's":        {global("peers 127.0.0.1:8080") + "http://:8080 {\n\tgroupcache\n}\n", []string{"peers 127.0.0.1:8080", "site"}},
		"gossip is a site's":       {global("gossip 127.0.0.1:8081") + "http://localhost:8081 {\n\tbind 127.0.0.1\n\tgroupcache\n}\n", []string{"gossip 127.0.0.1:8081", "site"}},
		"site's behind its name":   {global("gossip 10.0.0.1\n\t\tpeers 10.0.0.1:443\n\t\tinsecure") + "www.example.com {\n\tgroupcache\n}\n", []string{"peers 10.0.0.1:443", "site"}},
		"redirects to HTTPS":       {global("peers 127.0.0.1:80") + "www.example.com {\n\tgroupcache\n}\n", []string{"peers 127.0.0.1:80", "site"}},
		"peers is the admin's":     {global("peers 127.0.0.1:2019"), []string{"peers 127.0.0.1:2019", "admin endpoint (localhost:2019)"}},
		"gossip is the admin's":    {strings.Replace(global("gossip 10.0.0.1:2020\n\t\tinsecure"), "{\n", "{\n\tadmin :2020\n", 1), []string{"gossip 10.0.0.1:2020", "admin endpoint (:2020)"}},
		"from the environment":     {global("peers 127.0.0.1:{env.GROUPCACHE_TEST_PORT}"), []string{"peers 127.0.0.1:2019", "admin endpoint"}},
		"IPv6 without brackets":    {global("gossip fd77::1:7946\n\t\tinsecure"), []string{"Caddyfile:4", "[fd77::1]:7946"}},
		"seed without brackets":    {global("join fd77::2:7946"), []string{"Caddyfile:4", "[fd77::2]:7946"}},
		"two addresses":            {global("gossip [10.0.0.1 172.17.0.2]:7946\n\t\tinsecure"), []string{"Caddyfile:4", "hostname -i", "172.17.0.2"}},
		"two in one value":         {global("gossip \"10.0.0.1 172.17.0.2\"\n\t\tinsecure"), []string{"Caddyfile:4", "hostname -i"}},
		"two addresses advertised": {global("gossip 0.0.0.0\n\t\tadvertise 10.0.0.1 172.17.0.2\n\t\tinsecure"), []string{"advertise 10.0.0.1 172.17.0.2", "ports"}},
		"two secrets in one value": {global("secret \"" + good + " " + good + "\""), []string{"secret 1", "2 lines", "by itself"}},
		"cluster of two words":     {global("cluster \"a b\""), []string{"Caddyfile:4", "a b", "without spaces"}},
		"loopback beside others":   {global("gossip 127.0.0.1:7946\n\t\tjoin 10.0.0.2"), []string{"join 10.0.0.2", "127.0.0.1", "address of this machine"}},
		"peers on loopback":        {global("gossip 10.0.0.1:7946\n\t\tpeers 127.0.0.1:8000\n\t\tinsecure"), []string{"10.0.0.1", "127.0.0.1:8000", "loopback"}},
	} {
		t.Run(name, func(t *testing.T) { wantRefusal(t, test.config, test.want) })
	}
}

func TestRightConfigurationIsAccepted(t *testing.T) {
	t.Setenv("GROUPCACHE_TEST_SECRET", "XLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU=")
	for name, config := range map[string]string{
		"nothing":                     "groupcache",
		"loopback":                    "groupcache {\n\tgossip 127.0.0.1:7946\n\tjoin [::1]:7946 cache.internal\n}",
		"IPv6":                        "groupcache {\n\tgossip [::1]:7946\n}",
		"localhost":                   "groupcache {\n\tgossip localhost\n}",
		"the admin's, which is off":   "admin off\n\tgroupcache {\n\t\tpeers 127.0.0.1:2019\n\t}",
		"the admin's, elsewhere":      "admin 127.0.0.2:2020\n\tgroupcache {\n\t\tpeers 127.0.0.1:2020\n\t}",
		"the admin's, on a socket":    "admin unix//run/caddy-test.sock\n\tgroupcache {\n\t\tpeers 127.0.0.1:2019\n\t}",
		"beyond, insecure":            "groupcache {\n\tgossip 10.0.0.1\n\tinsecure\n}",
		"advertised":                  "groupcache {\n\tgossip 0.0.0.0:7946\n\tadvertise 203.0.113.7:7946 203.0.113.7:8000\n\tinsecure\n}",
		"beyond, with a secret":       "groupcache {\n\tgossip 10.0.0.1\n\tsecret {env.GROUPCACHE_TEST_SECRET}\n}",
		"secret from the environment": "groupcache {\n\tgossip 127.0.0.1:7946\n\tsecret {env.GROUPCACHE_TEST_SECRET}\n}",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := validate(t, "{\n\tstorage file_system "+dir+"\n\t"+config+"\n}\n:8080 {\n\tgroupcache\n}\n:8081 {\n\tgroupcache\n}\n"); err != nil {
				t.Error(err)
			}
			if currentProcess() != nil {
				t.Error("a node is left behind")
			}
		})
	}
}

func FuzzCaddyfile(f *testing.F) {
	f.Add("groupcache {\n\tttl 1m 200\n\tquery ignore utm_*\n\tstale if_error 1h\n}")
	f.Add("groupcache {\n\tcache_size 1GiB\n\tadvertise 1.2.3.4 5.6.7.8\n}")
	f.Fuzz(func(t *testing.T, s string) {
		for _, config := range []string{"{\n" + s + "\n}\n", ":80 {\n" + s + "\n}\n"} {
			// It may fail, and must not panic.
			_, _, _ = caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
		}
	})
}

// TestSecretIsNoPurgeToken: applications have tokens, and whoever has a secret is a node.
func TestSecretIsNoPurgeToken(t *testing.T) {
	const secret, token = "XLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU=", "YLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU="
	config := func(format, tokens string) string {
		site := fmt.Sprintf(format, t.TempDir(), tokens)
		return strings.Replace(site, "{\n", "{\n\tgroupcache {\n\t\tsecret "+secret+"\n\t}\n", 1)
	}
	t.Setenv("GROUPCACHE_TEST_TOKEN", strings.TrimRight(secret, "="))
	for _, tokens := range []string{token + " " + secret, token + " {env.GROUPCACHE_TEST_TOKEN}"} {
		wants := []string{"purge token 2", "a secret of the cluster", "keygen"}
		wantRefusal(t, config(directiveOption, "purge {\n\t\t\ttoken "+tokens+"\n\t\t}"), wants)
		wantRefusal(t, config(purgeAPIOption, "token "+tokens), wants)
	}
	if err := validate(t, config(purgeAPIOption, "token "+token)); err != nil {
		t.Error(err)
	}
}
