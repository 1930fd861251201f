//go:build unix

package caddygroupcache_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// The recipes for WordPress and MediaWiki, tried with the applications themselves where
// Debian's packages of them are installed.

// wordPressConfig goes with the socket of a database in the folder of the test.
const wordPressConfig = `<?php
define('DB_NAME', 'wp'); define('DB_USER', 'root'); define('DB_PASSWORD', '');
define('DB_HOST', 'localhost:DIR/db.sock'); define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');
$table_prefix = 'wp_';
define('AUTOMATIC_UPDATER_DISABLED', true); define('DISABLE_WP_CRON', true);
if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
`

// wordPressPlugin purges at the moments, and by the requests, of the plugin Proxy Cache
// Purge: at the end of the request that has changed a post, one for each page, and one for
// all when the theme is another. The test writes where the cache is.
const wordPressPlugin = `<?php
add_filter('wp_is_comment_flood', '__return_false', 99);
class Purges { static $urls = []; static $all = false; }
function purges_of_post($id) {
	Purges::$urls += array_flip([get_permalink($id), home_url('/'), get_bloginfo_rss('rss2_url'), get_bloginfo_rss('comments_rss2_url'),
		get_author_posts_url(get_post_field('post_author', $id))]);
	foreach (get_the_category($id) as $c) Purges::$urls[get_category_link($c)] = 1;
}
foreach (['save_post', 'deleted_post', 'edit_post'] as $when) add_action($when, 'purges_of_post');
add_action('comment_post', function ($id) { purges_of_post(get_comment($id)->comment_post_ID); });
add_action('switch_theme', function () { Purges::$all = true; });
add_action('shutdown', function () {
	$send = function ($path, $how) {
		$r = wp_remote_request('http://' . file_get_contents('DIR/cache') . $path, ['method' => 'PURGE', 'headers' => ['host' => 'www.example.com', 'X-Purge-Method' => $how]]);
		$said = is_wp_error($r) ? $r->get_error_message() : wp_remote_retrieve_response_code($r);
		file_put_contents('DIR/purges', "$how $path $said\n", FILE_APPEND);
	};
	if (Purges::$all) { $send('/.*', 'regex'); return; }
	foreach (Purges::$urls as $url => $_) $send(parse_url($url, PHP_URL_PATH), 'default');
});
`

// wordPressSetup is what an administrator clicks after the installation.
const wordPressSetup = `<?php
$_SERVER['HTTP_HOST'] = 'www.example.com';
require 'DIR/site/wp-load.php';
update_option('permalink_structure', '/%postname%/'); update_option('comment_previously_approved', 0);
flush_rewrite_rules();
foreach (['alice', 'bob'] as $u) wp_insert_user(['user_login' => $u, 'user_pass' => "$u has a password", 'role' => 'author', 'display_name' => ucfirst($u)]);
`

const wordPressTheme = `<?php $_SERVER['HTTP_HOST'] = 'www.example.com'; require 'DIR/site/wp-load.php'; do_action('switch_theme');`

func startWordPress(t *testing.T) *phpApplication {
	t.Helper()
	a := newPHPApplication(t, "www.example.com", map[string]string{
		"/usr/share/wordpress/wp-load.php": "wordpress", "php": "php-cli", "php:mysqli": "php-mysql", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server",
	})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(a.dir, "db.sock")
	a.run("mariadb-install-db", "--no-defaults", "--datadir="+filepath.Join(a.dir, "db"), "--auth-root-authentication-method=normal", "--skip-test-db")
	a.service(db, "mariadbd", "--no-defaults", "--user="+me.Username, "--datadir="+filepath.Join(a.dir, "db"), "--socket="+db, "--skip-networking", "--pid-file="+filepath.Join(a.dir, "db.pid"))
	a.run("mariadb", "--no-defaults", "-uroot", "-S", db, "-e", "create database wp")
	site := filepath.Join(a.dir, "site")
	a.run("cp", "-rL", "/usr/share/wordpress", site)
	if err := os.Remove(filepath.Join(site, "wp-config.php")); err != nil { // Debian's, in /etc
		t.Fatal(err)
	}
	a.write("cache", "127.0.0.1:1")
	for name, text := range map[string]string{"site/wp-config.php": wordPressConfig, "site/wp-content/mu-plugins/purges.php": wordPressPlugin, "setup.php": wordPressSetup, "theme.php": wordPressTheme} {
		a.write(name, text)
	}
	a.serve(site, "")
	at := []*recipe{{process: &process{t: t, http: a.addr()}, host: a.host}}
	install := newVisitor(t, at).post(0, "/wp-admin/install.php?step=2", url.Values{
		"weblog_title": {"A blog"}, "user_name": {"admin"}, "admin_password": {"admin has a password"}, "admin_password2": {"admin has a password"}, "admin_email": {"admin@example.com"},
	})
	if !strings.Contains(install.body, "Success!") {
		t.Fatalf("installing WordPress: %d %s", install.status, install.body)
	}
	a.run("php", filepath.Join(a.dir, "setup.php"))
	return a
}

// logIn logs a user of WordPress in.
func (a *phpApplication) logIn(at []*recipe, name string) *visitor {
	a.t.Helper()
	v := newVisitor(a.t, at, "wordpress_test_cookie=WP%20Cookie%20check")
	if got := v.post(0, "/wp-login.php", url.Values{"log": {name}, "pwd": {name + " has a password"}, "testcookie": {"1"}}); got.status != http.StatusFound {
		a.t.Fatalf("%s logs in: %d %s", name, got.status, brief(got.body))
	}
	return v
}

func TestWordPress(t *testing.T) {
	a := startWordPress(t)
	example := string(readFile(t, "examples/wordpress/Caddyfile"))
	example = example[strings.Index(example, "{\n"):] // without the comment
	for _, tt := range []struct {
		name  string
		start func(t *testing.T) []*recipe
	}{
		{"recipe on three nodes", func(t *testing.T) []*recipe {
			return startRecipes(t, 3, "wordpress.md", a.host, a.origin, "10.0.0.5:8080", a.addr(), "10.0.0.5", "127.0.0.1", "ttl 10m", "ttl 10m\n"+patient)
		}},
		{"example", func(t *testing.T) []*recipe {
			return startSite(t, 1, example, a.host, a.origin, "/var/www/wordpress", filepath.Join(a.dir, "site"), "unix//run/php/php-fpm.sock", "unix/"+a.socket)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := tt.start(t)
			a.write("cache", at[0].http)
			wordPressVisits(t, a, at)
			wordPressChanges(t, a, at, tt.name)
		})
	}
}

// wordPressVisits: visitors share pages, and users do not.
func wordPressVisits(t *testing.T, a *phpApplication, at []*recipe) {
	anonymous := newVisitor(t, at)
	page := anonymous.get(0, "/hello-world/")
	for node := range at {
		samePage(t, "a visitor with cookies of analytics", page, newVisitor(t, at, "_ga=GA1.2", "_gid=1").get(node, "/hello-world/?utm_source=x"))
	}
	users := map[string]*visitor{"Alice": a.logIn(at, "alice"), "Bob": a.logIn(at, "bob"), "": anonymous}
	names := []string{"Alice", "Bob", ""}
	for i, got := range together(15, 6, func(i int) answer { return users[names[i%3]].get(i/3, "/hello-world/") }) {
		name := names[i%3]
		if name == "" {
			samePage(t, "a visitor beside users", page, got)
			continue
		}
		other := names[1-i%3]
		if got.status != 200 || got.hit() || !strings.Contains(got.body, `display-name">`+name) || strings.Contains(got.body, `display-name">`+other) {
			t.Errorf("%s: %d, %s", name, got.status, got.cacheStatus())
		}
	}
	admin := a.logIn(at, "admin")
	for i, path := range []string{"/wp-admin/", "/wp-admin/post-new.php", "/wp-login.php", "/wp-json/wp/v2/users/me"} {
		if got := admin.get(i, path); got.status != 200 && i < 2 || got.hit() {
			t.Errorf("an administrator at %s: %d, %s", path, got.status, got.cacheStatus())
		}
		if got := anonymous.get(i, path); got.status == 200 && i != 2 || got.hit() {
			t.Errorf("a visitor at %s: %d, %s", path, got.status, got.cacheStatus())
		}
	}
}

// samePage fails the test unless two answers have one body, which the second got by the
// cache: on another node, the fill may be on its way to the owner.
func samePage(t *testing.T, what string, a, b answer) {
	t.Helper()
	if a.status != http.StatusOK || b.status != http.StatusOK || a.body != b.body || !b.shared() {
		t.Errorf("%s: %d %s, then %d %s (%s)", what, a.status, brief(a.body), b.status, brief(b.body), b.cacheStatus())
	}
}

// wordPressChanges: what is purged is new on all nodes.
func wordPressChanges(t *testing.T, a *phpApplication, at []*recipe, tag string) {
	anonymous := newVisitor(t, at)
	isNew := func(what, text string, paths ...string) {
		t.Helper()
		for _, path := range paths {
			for node := range at {
				if got := anonymous.get(node, path); got.status != 200 || !strings.Contains(got.body, text) {
					t.Errorf("after %s, node %d has the old %s (%d, %s)", what, node+1, path, got.status, got.cacheStatus())
				}
			}
		}
	}
	paths := []string{"/", "/hello-world/", "/feed/", "/category/uncategorized/", "/author/admin/"}
	isNew("nothing", "", append(paths, "/comments/feed/", "/sample-page/")...)

	commenter, text := newVisitor(t, at), "A comment with the "+tag
	got := commenter.post(1, "/wp-comments-post.php", url.Values{
		"comment": {text}, "author": {"Zoe"}, "email": {"zoe@example.com"}, "comment_post_ID": {"1"}, "wp-comment-cookies-consent": {"yes"},
	})
	if got.status != http.StatusFound {
		t.Fatalf("a comment: %d %s", got.status, brief(got.body))
	}
	isNew("a comment", text, "/hello-world/", "/comments/feed/")
	if own := commenter.get(0, "/hello-world/"); own.hit() || !strings.Contains(own.body, `value="Zoe"`) {
		t.Errorf("who has commented gets a page without the name (%s)", own.cacheStatus())
	}
	if strings.Contains(anonymous.get(0, "/hello-world/").body, `value="Zoe"`) {
		t.Error("a visitor gets the page of who has commented")
	}

	text = "Edited with the " + tag
	const edit = `<methodCall><methodName>wp.editPost</methodName><params><param><value><int>1</int></value></param><param><value>admin</value></param><param><value>admin has a password</value></param><param><value><int>1</int></value></param><param><value><struct><member><name>post_content</name><value>%s</value></member></struct></value></param></params></methodCall>`
	if got := at[len(at)-1].ask("POST", "/xmlrpc.php", fmt.Sprintf(edit, text), "Content-Type", "text/xml"); got.status != 200 || strings.Contains(got.body, "fault") {
		t.Fatalf("editing: %d %s", got.status, got.body)
	}
	isNew("an edit", text, paths...)

	page := anonymous.get(0, "/sample-page/")
	samePage(t, "a page that has not changed", page, anonymous.get(0, "/sample-page/"))
	a.run("php", filepath.Join(a.dir, "theme.php"))
	for node := range at {
		if got := anonymous.get(node, fmt.Sprintf("/sample-page/?%d", node)); got.hit() {
			t.Errorf("after the purge of all: %s", got.cacheStatus())
		}
	}
	if got := anonymous.get(0, "/sample-page/"); got.hit() {
		t.Errorf("after the purge of all: %s", got.cacheStatus())
	}
	sent, err := os.ReadFile(filepath.Join(a.dir, "purges"))
	if lines := strings.Fields(string(sent)); err != nil || len(lines) < 10 {
		t.Errorf("the plugin has sent %q: %v", sent, err)
	}
	for line := range strings.Lines(string(sent)) {
		if !strings.HasSuffix(line, " 200\n") {
			t.Errorf("the plugin has got %q", line)
		}
	}
}

// mediaWikiSettings are those of the recipe; the rest the installer writes.
const mediaWikiSettings = `
$wgUseCdn = true;
$wgCdnServers = [ trim( file_get_contents( 'DIR/cache' ) ) ];
`

func TestMediaWiki(t *testing.T) {
	a := newPHPApplication(t, "wiki.example.com", map[string]string{
		"/usr/share/mediawiki/index.php": "mediawiki", "php": "php-cli", "php:pdo_sqlite": "php-sqlite3", "php:mbstring": "php-mbstring",
	})
	const code = "/usr/share/mediawiki"
	a.write("db/.keep", "")
	a.run("php", code+"/maintenance/install.php", "--confpath", a.dir, "--dbtype", "sqlite", "--dbpath", a.dir+"/db", "--server", "http://"+a.host, "--scriptpath", "", "--pass", "admin has a password", "Wiki", "Admin")
	settings := filepath.Join(a.dir, "LocalSettings.php")
	a.write("LocalSettings.php", string(readFile(t, settings))+mediaWikiSettings)
	a.write("cache", "127.0.0.1:1")
	t.Setenv("MW_CONFIG_FILE", settings)
	a.run("php", code+"/maintenance/createAndPromote.php", "Bob", "Bob has a password")
	a.serve(code, "env[MW_CONFIG_FILE] = "+settings)
	at := startRecipes(t, 3, "mediawiki.md", a.host, a.origin, "10.0.0.5:8080", a.addr(), "10.0.0.5", "127.0.0.1", "purge {", patient+"\npurge {")
	a.write("cache", at[0].http)

	const main = "/index.php?title=Main_Page"
	before := a.fetches("/index.php")
	for i, got := range together(40, 1, func(i int) answer {
		return newVisitor(t, at, fmt.Sprintf("_ga=GA1.%d", i), fmt.Sprintf("_ga_X1=GS%d", i), fmt.Sprintf("_gid=%d", i)).get(i, main)
	}) {
		if got.status != 200 || !strings.Contains(got.body, "MediaWiki has been installed") {
			t.Errorf("visitor %d: %d %s", i, got.status, brief(got.body))
		}
	}
	if n := a.fetches("/index.php") - before; n != 1 {
		t.Errorf("%d fetches for 40 visitors with cookies of analytics", n)
	}

	users := map[string]*visitor{"Admin": a.wikiUser(at, "Admin", "admin has a password"), "Bob": a.wikiUser(at, "Bob", "Bob has a password"), "": newVisitor(t, at)}
	names := []string{"Admin", "Bob", ""}
	for i, got := range together(15, 6, func(i int) answer { return users[names[i%3]].get(i/3, main) }) {
		name := names[i%3]
		for _, user := range names[:2] {
			if strings.Contains(got.body, `"wgUserName":"`+user+`"`) != (name == user) {
				t.Errorf("%q gets a page of another visitor (%s)", name, got.cacheStatus())
			}
		}
		if got.status != 200 || got.hit() != (name == "") {
			t.Errorf("%q: %d, %s", name, got.status, got.cacheStatus())
		}
	}
	session := newVisitor(t, at)
	session.get(0, "/index.php?title=Special:UserLogin")
	if got := session.get(1, main); got.status != 200 || got.cacheStatus() != "" {
		t.Errorf("a visitor who is about to log in: %d, %s", got.status, got.cacheStatus())
	}

	var tokens struct {
		Query struct{ Tokens struct{ Csrftoken string } }
	}
	users["Bob"].api(2, &tokens, "action", "query", "meta", "tokens")
	var edit struct{ Edit struct{ Result string } }
	users["Bob"].api(2, &edit, "action", "edit", "title", "Main_Page", "text", "New words", "token", tokens.Query.Tokens.Csrftoken)
	if edit.Edit.Result != "Success" {
		t.Fatalf("editing: %v", edit)
	}
	for node := range at {
		if got := users[""].get(node, main); !strings.Contains(got.body, "New words") {
			t.Errorf("after an edit, node %d has the old page (%s)", node+1, got.cacheStatus())
		}
	}
}

// wikiUser logs a user of MediaWiki in.
func (a *phpApplication) wikiUser(at []*recipe, name, password string) *visitor {
	a.t.Helper()
	v := newVisitor(a.t, at)
	var tokens struct {
		Query struct{ Tokens struct{ Logintoken string } }
	}
	v.api(0, &tokens, "action", "query", "meta", "tokens", "type", "login")
	var said struct {
		Login struct{ Result, Reason string }
	}
	v.api(1, &said, "action", "login", "lgname", name, "lgpassword", password, "lgtoken", tokens.Query.Tokens.Logintoken)
	if said.Login.Result != "Success" {
		a.t.Fatalf("%s logs in: %v", name, said)
	}
	return v
}

// api calls MediaWiki's API, with pairs of parameters.
func (v *visitor) api(node int, answer any, parameters ...string) {
	v.t.Helper()
	form := url.Values{"format": {"json"}}
	for i := 0; i < len(parameters); i += 2 {
		form.Set(parameters[i], parameters[i+1])
	}
	got := v.post(node, "/api.php", form)
	if err := json.Unmarshal([]byte(got.body), answer); err != nil {
		v.t.Fatalf("%s: %d %s", parameters[1], got.status, brief(got.body))
	}
}
