package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

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
	proxy_cache_path %[1]s/nginx-cache keys_zone=bench:16m max_size=1g;
	server {
		listen %[2]s;
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

// A rival is another cache on this machine.
type rival struct {
	*harness.Process
	addr string
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
	for _, r := range []struct {
		program, config string
		args            []string // after the configuration, and with addr
	}{
		{"nginx", nginxConfig, []string{"-p", l.dir, "-e", "stderr", "-c"}},
		{"varnishd", varnishConfig, []string{"-F", "-j", "none", "-s", "malloc,512m", "-n", filepath.Join(l.dir, "varnish"), "-f"}},
	} {
		exe, err := lookUp(r.program)
		if err != nil {
			continue // not here
		}
		addr, err := freeAddr()
		if err != nil {
			return rivals, err
		}
		config := fmt.Sprintf(varnishConfig, port(l.origin))
		args := append(r.args, filepath.Join(l.dir, r.program+".conf"))
		if r.program == "nginx" {
			config = fmt.Sprintf(nginxConfig, l.dir, addr, l.origin)
		} else {
			args = append(args, "-a", addr)
		}
		if err := os.WriteFile(filepath.Join(l.dir, r.program+".conf"), []byte(config), 0o644); err != nil {
			return rivals, err
		}
		p, err := l.start(ctx, r.program, addr, exec.Command(exe, args...))
		if p != nil {
			rivals = append(rivals, &rival{p, addr})
		}
		if err != nil {
			return rivals, err
		}
	}
	return rivals, nil
}

// lookUp finds a program also where only root's PATH leads.
func lookUp(program string) (string, error) {
	if exe, err := exec.LookPath(program); err == nil {
		return exe, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}
