// Command release makes what a release consists of, in a way that anyone can
// repeat: binaries, their bills of materials (CycloneDX), a container image and
// the checksums of all of it. It is called in the folder tools.
//
//	release [-revision REVISION] [-platforms OS/ARCH,...] VERSION OUTPUT
//
// VERSION is a tag of this repository, such as v0.1.0, which CHANGELOG.md has to
// list. Until there is the tag, -revision HEAD stands for it. What is not committed
// has no part in it.
//
// A binary is what "go install" makes of the published module: the revision is
// packed as the module proxies pack it, and built from there. So the version is in
// the binary, the folder of the checkout is not, and after the tag has been
// published, one command of docs/releasing.md makes the same binary without this
// program.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	modzip "golang.org/x/mod/zip"

	"github.com/caddy-groupcache/caddy-groupcache/tools/internal/modproxy"
)

const (
	modulePath = "github.com/caddy-groupcache/caddy-groupcache"
	program    = "caddy-groupcache"

	// toolchain compiles the binaries and this program, whose compressor makes
	// the archives. Another one makes other bytes of the same source.
	toolchain = "go1.26.8"
)

// platforms are those that a release has.
var platforms = []string{"linux/amd64", "linux/arm64", "linux/arm/7", "darwin/amd64", "darwin/arm64", "windows/amd64", "freebsd/amd64"}

// imagePlatforms are those of the container image.
var imagePlatforms = []string{"linux/amd64", "linux/arm64"}

func main() {
	revision := flag.String("revision", "", "what is released; the tag of the version unless told otherwise")
	chosen := flag.String("platforms", strings.Join(platforms, ","), "what to build for")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: release [-revision REVISION] [-platforms OS/ARCH,...] VERSION OUTPUT")
		os.Exit(2)
	}
	r := release{version: flag.Arg(0), revision: *revision, output: flag.Arg(1)}
	if r.revision == "" {
		r.revision = r.version
	}
	if err := r.make(strings.Split(*chosen, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

type release struct {
	version  string    // v0.1.0
	revision string    // a tag or commit of the checkout
	checkout string    // absolute
	output   string    // absolute
	work     string    // a folder for this run
	made     time.Time // of the commit: the time of every file
	goproxy  string    // where modules come from: the release, the module cache, proxies
}

func (r *release) make(platforms []string) (err error) {
	if semver.Canonical(r.version) != r.version {
		return fmt.Errorf("%s is no version such as v0.1.0", r.version)
	}
	if runtime.Version() != toolchain {
		return fmt.Errorf("this is %s: call it with GOTOOLCHAIN=%s, or with that Go", runtime.Version(), toolchain)
	}
	if r.checkout, err = filepath.Abs(".."); err != nil {
		return err
	}
	if r.output, err = filepath.Abs(r.output); err != nil {
		return err
	}
	if r.work, err = os.MkdirTemp("", "release"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(r.work)) }()
	if err := r.publish(); err != nil {
		return err
	}
	if err := os.Mkdir(r.output, 0o755); err != nil {
		return err // files of another run must not get among those of this one
	}

	binaries := make(map[string]string)
	for _, platform := range platforms {
		fmt.Println(platform)
		binary, err := r.build(platform)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		binaries[platform] = binary
		if err := r.pack(platform, binary); err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		if err := r.bill(platform, binary); err != nil {
			return fmt.Errorf("%s: bill of materials: %w", platform, err)
		}
	}
	images := slices.DeleteFunc(slices.Clone(imagePlatforms), func(platform string) bool { return binaries[platform] == "" })
	if len(images) > 0 {
		fmt.Println("image")
		if err := r.image(images, binaries); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	return r.checksums()
}

// publish puts the revision into a module proxy of its own.
func (r *release) publish() error {
	commit, err := r.git("show", "--no-patch", "--format=%H %ct", r.revision+"^{commit}")
	if err != nil {
		return err
	}
	var seconds int64
	if _, err := fmt.Sscan(string(commit), &r.revision, &seconds); err != nil {
		return err
	}
	r.made = time.Unix(seconds, 0).UTC()
	changelog, err := r.git("show", r.revision+":CHANGELOG.md")
	if err != nil {
		return err
	}
	if number := strings.TrimPrefix(r.version, "v"); !regexp.MustCompile(`(?m)^## ` + regexp.QuoteMeta(number) + `\b`).Match(changelog) {
		return fmt.Errorf("CHANGELOG.md has no version %s in %s", number, r.revision)
	}
	mod, err := r.git("show", r.revision+":go.mod")
	if err != nil {
		return err
	}
	m := module.Version{Path: modulePath, Version: r.version}
	// The checkout may be a worktree, which modzip does not take for a repository.
	source := filepath.Join(r.work, "source")
	if _, err := r.git("clone", "--quiet", "--shared", "--no-checkout", r.checkout, source); err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := modzip.CreateFromVCS(&archive, m, source, r.revision, ""); err != nil {
		return err
	}
	proxy := filepath.Join(r.work, "proxy")
	if err := modproxy.Write(proxy, m, r.made, mod, archive.Bytes()); err != nil {
		return err
	}
	// What is in the module cache is not fetched again. Its own copy of this
	// version, if there is one, has no part in it: the first proxy that has a
	// version gives it.
	out, err := exec.Command("go", "env", "GOMODCACHE", "GOPROXY").Output()
	if err != nil {
		return err
	}
	cache, outer, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	r.goproxy = fmt.Sprintf("file://%s,file://%s,%s", filepath.ToSlash(proxy), filepath.ToSlash(filepath.Join(cache, "cache", "download")), outer)
	return nil
}

func (r *release) git(args ...string) ([]byte, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.checkout
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// build returns the path of the binary for a platform.
func (r *release) build(platform string) (string, error) {
	system, arch, _ := strings.Cut(platform, "/")
	arch, arm, _ := strings.Cut(arch, "/")
	if arm == "" {
		arm = "7"
	}
	gopath := filepath.Join(r.work, "go")
	// Settings of this machine, by variables or by "go env -w", must not get into it.
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags=-s -w", modulePath+"/cmd/caddy@"+r.version)
	cmd.Dir = r.work
	cmd.Env = append(os.Environ(),
		"GOOS="+system, "GOARCH="+arch, "GOARM="+arm, "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0",
		"GOTOOLCHAIN="+toolchain, "GOENV=off", "GOWORK=off", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GODEBUG=",
		"GOPATH="+gopath, "GOBIN=", "GOMODCACHE="+filepath.Join(r.work, "modules"),
		"GOPROXY="+r.goproxy, "GOPRIVATE=", "GONOPROXY=", "GONOSUMDB="+modulePath)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", err
	}
	name := "caddy"
	if system == "windows" {
		name += ".exe"
	}
	dir := filepath.Join(gopath, "bin")
	if system != runtime.GOOS || arch != runtime.GOARCH {
		dir = filepath.Join(dir, system+"_"+arch)
	}
	return filepath.Join(dir, name), nil
}

// file is the path of what the release has for a platform.
func (r *release) file(platform, ending string) string {
	name := program + "_" + strings.TrimPrefix(r.version, "v")
	if platform != "" {
		name += "_" + strings.NewReplacer("/arm/", "_armv", "/", "_").Replace(platform)
	}
	return filepath.Join(r.output, name+ending)
}

// bill writes what a binary is made of, as the binary itself says. A bill has the
// checksum of the tool that wrote it, so the tool is built reproducibly too.
func (r *release) bill(platform, binary string) error {
	tool := filepath.Join(r.work, "cyclonedx-gomod")
	if _, err := os.Stat(tool); err != nil {
		cmd := exec.Command("go", "build", "-trimpath", "-o", tool, "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod")
		cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+toolchain, "GOFLAGS=-buildvcs=false", "GOEXPERIMENT=", "GOFIPS140=off", "GOAMD64=v1", "GOARM64=v8.0", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	cmd := exec.Command(tool, "bin", "-json", "-std", "-noserial", "-notimestamp", "-version", r.version, "-output", r.file(platform, ".cdx.json"), binary)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// checksums writes a file for sha256sum --check.
func (r *release) checksums() error {
	files, err := os.ReadDir(r.output)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, f := range files { // by name
		content, err := os.ReadFile(filepath.Join(r.output, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(content), f.Name())
	}
	fmt.Print(out.String())
	return os.WriteFile(filepath.Join(r.output, "checksums.txt"), out.Bytes(), 0o644)
}

// removeAll removes a folder in which a module cache is, whose folders are read-only.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o755)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
