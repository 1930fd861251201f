package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// Other caches, if they happen to be installed, join the tables. Each marks its
// hits in Cache-Status, and is otherwise configured as one would.

const nginxConfig = `daemon off;
worker_processes auto;
pid %[1]s/nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
	access_log off;
	sendfile on;
	keepalive_requests 1000000000;
	client_body_temp_path %[1]s/nginx-body;
	proxy_temp_path %[1]s/nginx-proxy;
	fastcgi_temp_path %[1]s/nginx-fastcgi;
	uwsgi_temp_path %[1]s/nginx-uwsgi;
	scgi_temp_path %[1]s/nginx-scgi;
	proxy_cache_path %[1]s/nginx-cache levels=1:2 keys_zone=bench:200m max_size=8g;
	server {
		listen %[2]s;
		listen %[4]s ssl http2;
		ssl_certificate %[1]s/cert.pem;
		ssl_certificate_key %[1]s/key.pem;
		location / {
			proxy_pass http://%[3]s;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_cache bench;
			add_header Cache-Status "nginx; $upstream_cache_status";
		}
	}
}
`

const varnishConfig = `vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "%s"; }
sub vcl_deliver {
	if (obj.hits > 0) { set resp.http.Cache-Status = "varnish; HIT"; }
}
`

// What Traffic Server reads, by the name of the file.
var trafficConfig = map[string]string{
	"runroot.yaml": `prefix: DIR
exec_prefix: DIR
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: DIR
datadir: DIR
includedir: /usr/include
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: DIR
runtimedir: DIR
logdir: DIR
cachedir: DIR
`,
	"records.config": `CONFIG proxy.config.http.server_ports STRING PORT:ipv4 SECURE:ipv4:ssl
CONFIG proxy.config.admin.user_id STRING nobody
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.cache.ram_cache.size INT 4G
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT THREADS
CONFIG proxy.config.url_remap.pristine_host_hdr INT 1
CONFIG proxy.config.http.insert_response_via_str INT 1
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600
CONFIG proxy.config.ssl.server.cert.path STRING CERTIFICATES
CONFIG proxy.config.ssl.server.private_key.path STRING CERTIFICATES
`,
	"remap.config": "map / http://ORIGIN/ @plugin=header_rewrite.so @pparam=DIR/hit.config\n",
	"hit.config": `cond %{SEND_RESPONSE_HDR_HOOK} [AND]
cond %{CACHE} ="hit-fresh"
  set-header Cache-Status "traffic_server; HIT"
`,
	"storage.config":       "DIR 8G\n",
	"ssl_multicert.config": "dest_ip=* ssl_cert_name=cert.pem ssl_key_name=key.pem\n",
	"ip_allow.yaml":        "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n",
	"plugin.config":        "",
}

// A rival is another cache on this machine.
type rival struct {
	*harness.Process
	addr   string
	secure string // for TLS, with HTTP/1.1 and HTTP/2; "": it has none
}

// startRivals starts what is installed.
func (l *lab) startRivals(ctx context.Context) (rivals []*rival, err error) {
	defer func() {
		if err != nil {
			for _, r := range rivals {
				_ = r.End() // err says more
			}
		}
	}()
	for _, start := range []func(context.Context, *rival) (*harness.Process, error){l.startNginx, l.startVarnish, l.startTraffic} {
		r := new(rival)
		if r.addr, err = freeAddr(); err != nil {
			return rivals, err
		}
		if r.secure, err = freeAddr(); err != nil {
			return rivals, err
		}
		r.Process, err = start(ctx, r)
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if r.Process != nil {
			rivals = append(rivals, r)
		}
		if err != nil {
			return rivals, err
		}
	}
	return rivals, nil
}

func (l *lab) startNginx(ctx context.Context, r *rival) (*harness.Process, error) {
	exe, err := lookUp("nginx")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(l.dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, l.dir, r.addr, l.origin, r.secure), 0o644); err != nil {
		return nil, err
	}
	return l.start(ctx, "nginx", r.addr, exec.Command(exe, "-p", l.dir, "-e", "stderr", "-c", file))
}

// startVarnish starts Varnish, of which only a proxy in front speaks TLS.
func (l *lab) startVarnish(ctx context.Context, r *rival) (*harness.Process, error) {
	r.secure = ""
	exe, err := lookUp("varnishd")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(l.dir, "varnishd.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, varnishConfig, port(l.origin)), 0o644); err != nil {
		return nil, err
	}
	return l.start(ctx, "varnishd", r.addr, exec.Command(exe, "-F", "-j", "none", "-s", "malloc,4g", "-n", filepath.Join(l.dir, "varnish"), "-f", file, "-a", r.addr))
}

// startTraffic starts Traffic Server, as a user that may write to a folder of its own.
func (l *lab) startTraffic(ctx context.Context, r *rival) (*harness.Process, error) {
	exe, err := lookUp("traffic_server")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.dir, "traffic")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o777); err != nil { // whatever the umask is
		return nil, err
	}
	for name, text := range trafficConfig {
		text = strings.NewReplacer("DIR", dir, "PORT", port(r.addr), "ORIGIN", l.origin, "SECURE", port(r.secure),
			"THREADS", strconv.Itoa(runtime.NumCPU()), "CERTIFICATES", l.dir).Replace(text)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return l.start(ctx, "traffic_server", r.addr, exec.Command(exe, "--run-root="+dir))
}

// lookUp finds a program also where only root's PATH leads.
func lookUp(program string) (string, error) {
	if exe, err := exec.LookPath(program); err == nil {
		return exe, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}
