module github.com/caddy-groupcache/caddy-groupcache/conformance

go 1.26.0

require github.com/caddy-groupcache/caddy-groupcache v0.0.0

replace github.com/caddy-groupcache/caddy-groupcache => ../
