// Command caddy is the standard distribution of Caddy with groupcache.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-groupcache/caddy-groupcache"
)

func main() { caddycmd.Main() }
