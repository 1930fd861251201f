// Command publish puts a checkout of a Go module into a directory that serves
// as a module proxy (GOPROXY=file://...), as if it had been tagged and
// published, and prints the version it has there.
//
//	publish <checkout> <proxy directory>
//
// The version is made from the content, so that a module cache never confuses
// two states of the checkout.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"github.com/caddy-groupcache/caddy-groupcache/tools/internal/modproxy"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: publish <checkout> <proxy directory>")
		os.Exit(2)
	}
	version, err := publish(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		os.Exit(1)
	}
	fmt.Println(version)
}

func publish(checkout, proxy string) (version string, err error) {
	mod, err := os.ReadFile(filepath.Join(checkout, "go.mod"))
	if err != nil {
		return "", err
	}
	path := modfile.ModulePath(mod)
	if path == "" {
		return "", fmt.Errorf("%s names no module", filepath.Join(checkout, "go.mod"))
	}
	// The version is part of every name in the archive, so it takes one
	// archive to find the version and another to have it inside.
	content, err := archive(path, "v0.0.0-ci", checkout)
	if err != nil {
		return "", err
	}
	version = fmt.Sprintf("v0.0.0-ci.x%x", sha256.Sum256(content))[:len("v0.0.0-ci.x")+16]
	if content, err = archive(path, version, checkout); err != nil {
		return "", err
	}
	if err := modproxy.Write(proxy, module.Version{Path: path, Version: version}, time.Now(), mod, content); err != nil {
		return "", err
	}
	return version, nil
}

// archive packs what a module proxy would serve: no version control, no nested
// modules.
func archive(path, version, checkout string) ([]byte, error) {
	var out bytes.Buffer
	err := modzip.CreateFromDir(&out, module.Version{Path: path, Version: version}, checkout)
	return out.Bytes(), err
}
