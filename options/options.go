// Package options reads the arguments of Caddyfile options.
package options

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
)

// HasPlaceholder reports whether an argument is known only when Caddy runs.
func HasPlaceholder(s string) bool { return strings.Contains(s, "{") }

// String reads the one argument of an option. An empty one, as of a variable of the
// environment that is not set, would be the default.
func String(d *caddyfile.Dispenser, dst *string) error {
	option := d.Val()
	if !d.NextArg() {
		return d.ArgErr()
	}
	if *dst = d.Val(); *dst == "" {
		return errEmpty(d, option)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func errEmpty(d *caddyfile.Dispenser, option string) error {
	return d.Errf("%s takes a value that is not empty: leave the option out for the default", option)
}

// Flag sets an option that takes no argument.
func Flag(d *caddyfile.Dispenser, dst *bool) error {
	*dst = true
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Some reads one argument or more. what says in the error what they are.
func Some(d *caddyfile.Dispenser, what string) ([]string, error) {
	option, args := d.Val(), d.RemainingArgs()
	if len(args) == 0 {
		return nil, d.Errf("%s takes %s", option, what)
	}
	return args, nil
}

// Size reads a number of bytes, such as 512MiB; 0 is none.
func Size(d *caddyfile.Dispenser, dst *int64) error {
	option, arg := d.Val(), ""
	if err := String(d, &arg); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(arg)
	if err != nil || n == 0 || n > 1<<62 {
		return d.Errf("%s: %q is not a size such as 512MiB", option, arg)
	}
	*dst = int64(n)
	return nil
}

// Duration reads a duration such as 10s; 0 is none.
func Duration(d *caddyfile.Dispenser, dst *caddy.Duration) error {
	option, arg := d.Val(), ""
	if err := String(d, &arg); err != nil {
		return err
	}
	dur, err := caddy.ParseDuration(arg)
	if err != nil || dur <= 0 {
		return d.Errf("%s: %q is not a duration such as 10s", option, arg)
	}
	*dst = caddy.Duration(dur)
	return nil
}

// Address reads an address to listen at or to dial, with a default port.
func Address(d *caddyfile.Dispenser, option string, dst *string, port string) error {
	args := d.RemainingArgs()
	switch {
	case len(args) != 1:
		return d.Errf("%s takes one address, not %d: %q; where hostname -i prints several, write the one that other nodes dial", option, len(args), args)
	case args[0] == "":
		return errEmpty(d, option)
	}
	*dst = args[0]
	if _, err := gossip.ParseAddress(option, *dst, port); err != nil && !HasPlaceholder(*dst) {
		return d.WrapErr(err)
	}
	return nil
}
