package harness

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"
)

const module = "github.com/caddy-groupcache/caddy-groupcache"

// Checkout returns the root of the repository that the working directory is in.
func Checkout() (string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("looking for the checkout: %w", err)
	}
	return strings.TrimSpace(string(dir)), nil
}

// Build builds Caddy with the cache from the checkout, with the versions that its
// go.mod has. flags are of go build.
func Build(ctx context.Context, binary string, flags ...string) error {
	root, err := Checkout()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", binary}, flags...), "./cmd/caddy")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", binary, err, out)
	}
	return nil
}

// Npm copies files into a folder that it makes, and installs the packages there as
// package-lock.json has them.
func Npm(ctx context.Context, files fs.FS, dir string) error {
	if err := os.CopyFS(dir, files); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--loglevel=error", "--prefer-offline")
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
}
