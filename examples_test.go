//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestExamplesAreValid: the real binary takes every Caddyfile as it stands.
func TestExamplesAreValid(t *testing.T) {
	exampleEnv(t)
	for _, name := range repoFiles(t, func(name string) bool { return path.Base(name) == "Caddyfile" || name == "Caddyfile.example" }) {
		validate(t, name)
	}
}

// TestExamplesHaveAReadme of about ten lines.
func TestExamplesHaveAReadme(t *testing.T) {
	dirs, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(readFile(t, "README.md"))
	for _, d := range dirs {
		b := readFile(t, "examples/"+d.Name()+"/README.md")
		if n := bytes.Count(b, []byte("\n")); n < 8 || n > 20 || !bytes.HasPrefix(b, []byte("# ")) {
			t.Errorf("the README of %s has %d lines", d.Name(), n)
		}
		if !strings.Contains(readme, "examples/"+d.Name()) {
			t.Errorf("README.md does not mention examples/%s", d.Name())
		}
	}
}

// checkSelectors looks whether everything is about the pods of the one set.
func checkSelectors(t *testing.T, byKind map[string][]map[string]any) {
	t.Helper()
	set, headless := byKind["StatefulSet"][0], byKind["Service"][0]
	labels := fmt.Sprint(at(set, "spec", "template", "metadata", "labels"))
	for what, selector := range map[string]any{
		"StatefulSet":         at(set, "spec", "selector", "matchLabels"),
		"headless Service":    at(byKind["Service"][0], "spec", "selector"),
		"Service":             at(byKind["Service"][1], "spec", "selector"),
		"PodDisruptionBudget": at(byKind["PodDisruptionBudget"][0], "spec", "selector", "matchLabels"),
		"NetworkPolicy":       at(byKind["NetworkPolicy"][0], "spec", "podSelector", "matchLabels"),
	} {
		if fmt.Sprint(selector) != labels {
			t.Errorf("the %s selects %v, and the pods are %v", what, selector, labels)
		}
	}
	if at(headless, "spec", "clusterIP") != "None" || at(headless, "spec", "publishNotReadyAddresses") != true || at(set, "spec", "serviceName") != at(headless, "metadata", "name") {
		t.Error("the first Service does not lead to all pods of the set")
	}
}

// checkPorts looks whether all ports that are named are the container's.
func checkPorts(t *testing.T, container any, headless map[string]any) {
	t.Helper()
	ports := make(map[string]string) // of the container, by name: number/protocol
	for _, p := range list(container, "ports") {
		protocol := at(p, "protocol")
		if protocol == nil {
			protocol = "TCP"
		}
		ports[fmt.Sprint(at(p, "name"))] = fmt.Sprint(at(p, "containerPort"), "/", protocol)
	}
	for name, want := range map[string]string{"gossip": "7946/TCP", "gossip-udp": "7946/UDP", "peers": "8000/TCP", "http": "80/TCP"} {
		if ports[name] != want {
			t.Errorf("port %s is %s, not %s", name, ports[name], want)
		}
	}
	for _, p := range list(headless, "spec", "ports") {
		if name := fmt.Sprint(at(p, "name")); ports[name] != fmt.Sprint(at(p, "port"), "/", at(p, "protocol")) {
			t.Errorf("the headless Service's port %s is none of the container's", name)
		}
	}
	for _, probe := range []string{"readinessProbe", "livenessProbe"} {
		if port := fmt.Sprint(at(container, probe, "httpGet", "port")); ports[port] == "" {
			t.Errorf("the %s asks port %s", probe, port)
		}
	}
}

// checkPodsCaddyfile looks whether Caddy takes the pods' configuration, and has what it
// asks the environment for.
func checkPodsCaddyfile(t *testing.T, caddyfile string, container any, headless map[string]any) {
	t.Helper()
	t.Run("Caddyfile", func(t *testing.T) { adapt(t, []byte(caddyfile)) })
	if !strings.Contains(caddyfile, "join "+fmt.Sprint(at(headless, "metadata", "name"))+"\n") {
		t.Error("nodes do not join by the headless Service")
	}
	env := make(map[string]bool)
	for _, e := range list(container, "env") {
		env[fmt.Sprint(at(e, "name"))] = true
	}
	for _, m := range regexp.MustCompile(`\{(?:\$|env\.)([A-Z_]+)`).FindAllStringSubmatch(caddyfile, -1) {
		if !env[m[1]] {
			t.Errorf("the container has no %s", m[1])
		}
	}
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	validate(t, file)
	t.Setenv("NODE_ADDRESS", "2001:db8::1") // a cluster with IPv6 only
	validate(t, file)
}

func TestKubernetesExample(t *testing.T) {
	exampleEnv(t)
	known := map[string]string{
		"ConfigMap": "v1", "Service": "v1", "StatefulSet": "apps/v1", "PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1",
	}
	byKind := make(map[string][]map[string]any)
	for _, o := range objects(t, "examples/kubernetes/groupcache.yaml") {
		kind := fmt.Sprint(o["kind"])
		if known[kind] == "" || o["apiVersion"] != known[kind] || !regexp.MustCompile(`^[a-z0-9-]{1,63}$`).MatchString(fmt.Sprint(at(o, "metadata", "name"))) {
			t.Errorf("%v %v called %v", o["apiVersion"], kind, at(o, "metadata", "name"))
		}
		byKind[kind] = append(byKind[kind], o)
	}
	if len(byKind["StatefulSet"]) != 1 || len(byKind["Service"]) != 2 || len(byKind["ConfigMap"]) != 1 {
		t.Fatalf("%d StatefulSets, %d Services, %d ConfigMaps", len(byKind["StatefulSet"]), len(byKind["Service"]), len(byKind["ConfigMap"]))
	}
	set := byKind["StatefulSet"][0]
	headless := byKind["Service"][0]
	checkSelectors(t, byKind)
	pod := at(set, "spec", "template", "spec")
	container := at(pod, "containers", 0)
	checkPorts(t, container, headless)
	config := byKind["ConfigMap"][0]
	if at(pod, "volumes", 0, "configMap", "name") != at(config, "metadata", "name") || at(container, "volumeMounts", 0, "name") != at(pod, "volumes", 0, "name") {
		t.Error("the config is not mounted")
	}
	checkPodsCaddyfile(t, fmt.Sprint(at(config, "data", "Caddyfile")), container, headless)
	checkArgs(t, list(container, "args"))
}

// TestHelmExample: the README of the chart names values that there are, and the
// chart has the version of the image. tools/chartcheck, which .ci/run calls,
// renders the chart.
func TestHelmExample(t *testing.T) {
	values := objects(t, "examples/helm/caddy-groupcache/values.yaml")[0]
	readme := string(readFile(t, "examples/helm/README.md"))
	named := regexp.MustCompile(`--set(?:-file)? ([A-Za-z.]+)=`).FindAllStringSubmatch(readme, -1)
	if len(named) == 0 || !strings.Contains(readme, "helm install groupcache ./caddy-groupcache ") {
		t.Error("the README does not install the chart")
	}
	for _, m := range named {
		var keys []any
		for key := range strings.SplitSeq(m[1], ".") {
			keys = append(keys, key)
		}
		if at(values, keys...) == nil {
			t.Errorf("there is no value %s", m[1])
		}
	}
	chart := objects(t, "examples/helm/caddy-groupcache/Chart.yaml")[0]
	if chart["version"] != chart["appVersion"] {
		t.Errorf("the chart has the version %v, and the image %v", chart["version"], chart["appVersion"])
	}
}

// TestSizesOfTheChart: each size that the chart takes is one that a Caddyfile takes.
func TestSizesOfTheChart(t *testing.T) {
	pattern, _ := at(objects(t, "examples/helm/caddy-groupcache/values.schema.json")[0], "properties", "cacheSize", "pattern").(string)
	takes := regexp.MustCompile(pattern)
	for size, want := range map[string]bool{
		"512MiB": true, "1.5GiB": true, "2GB": true, "512 MiB": false, "1.2.3GiB": false, ".GiB": false, "many": false, "512": false,
	} {
		if got := takes.MatchString(size); got != want {
			t.Errorf("%q: the chart takes it: %v", size, got)
		}
		if want {
			adapt(t, []byte("{\n\tgroupcache {\n\t\tcache_size "+size+"\n\t}\n}\n"))
		}
	}
}

// TestRelease: the newest version of the changelog is that of chart and image, and
// docs/releasing.md names the Go and the platforms of tools/release.
func TestRelease(t *testing.T) {
	m := regexp.MustCompile(`(?m)^## (\d\S*)`).FindStringSubmatch(string(readFile(t, "CHANGELOG.md")))
	if m == nil {
		t.Fatal("CHANGELOG.md has no version")
	}
	for _, name := range []string{"examples/helm/caddy-groupcache/Chart.yaml", "examples/kubernetes/groupcache.yaml", "docs/releasing.md"} {
		if !strings.Contains(string(readFile(t, name)), m[1]) {
			t.Errorf("%s does not name the version %s", name, m[1])
		}
	}
	release, told := string(readFile(t, "tools/release/main.go")), string(readFile(t, "docs/releasing.md"))
	names := regexp.MustCompile(`"(go1\.[\d.]+|(?:linux|darwin|windows|freebsd)/[a-z0-9/]+)"`).FindAllStringSubmatch(release, -1)
	if len(names) < 4 {
		t.Errorf("tools/release names %v", names)
	}
	for _, name := range names {
		if !strings.Contains(told, name[1]) {
			t.Errorf("docs/releasing.md does not name %s", name[1])
		}
	}
}

func TestComposeExample(t *testing.T) {
	all := objects(t, "examples/compose/compose.yaml")
	if len(all) != 1 {
		t.Fatalf("%d documents", len(all))
	}
	services, _ := all[0]["services"].(map[string]any)
	caddyfile := string(readFile(t, "examples/compose/Caddyfile"))
	for _, m := range regexp.MustCompile(`(?:join|reverse_proxy) ([a-z]+)`).FindAllStringSubmatch(caddyfile, -1) {
		if services[m[1]] == nil {
			t.Errorf("there is no service %s", m[1])
		}
	}
	for name, s := range services {
		if build := at(s, "build"); build == nil || len(readFile(t, path.Join("examples/compose", fmt.Sprint(build), "Dockerfile"))) == 0 {
			t.Errorf("%s is built in %v", name, build)
		}
		for _, needed := range list(s, "depends_on") {
			if services[fmt.Sprint(needed)] == nil {
				t.Errorf("%s depends on %v", name, needed)
			}
		}
		for _, v := range list(s, "volumes") {
			if source, _, _ := strings.Cut(fmt.Sprint(v), ":"); len(readFile(t, path.Join("examples/compose", source))) == 0 {
				t.Errorf("%s mounts %v", name, v)
			}
		}
	}
	cache := services["cache"]
	entry := fmt.Sprint(list(cache, "entrypoint")...)
	for _, m := range regexp.MustCompile(`\{(?:\$|env\.)([A-Z_]+)`).FindAllStringSubmatch(caddyfile, -1) {
		if !strings.Contains(entry, m[1]+"=") && at(cache, "environment", m[1]) == nil {
			t.Errorf("the containers have no %s", m[1])
		}
	}
	if at(cache, "deploy", "replicas") != 3 || !strings.Contains(fmt.Sprint(list(cache, "ports")...), "8081-8083:80") {
		t.Error("three nodes want three ports")
	}
	_, run, _ := strings.Cut(entry, "exec caddy ")
	var args []any
	for _, arg := range strings.Fields(run) {
		args = append(args, arg)
	}
	checkArgs(t, args)
	checkArgs(t, list(services["app"], "command"))
}

// checkArgs has the real binary say whether it knows a command and its flags.
func checkArgs(t *testing.T, args []any) {
	t.Helper()
	if len(args) == 0 {
		t.Fatal("no command")
	}
	help, exit := caddyCommand(t, fmt.Sprint(args[0]), "--help")
	if exit != 0 || !strings.Contains(help, "caddy "+fmt.Sprint(args[0])) {
		t.Errorf("caddy has no command %v", args[0])
	}
	for _, arg := range args {
		if flag := fmt.Sprint(arg); strings.HasPrefix(flag, "--") && !strings.Contains(help, flag) {
			t.Errorf("caddy %v has no flag %s", args[0], flag)
		}
	}
}

func TestSystemdExample(t *testing.T) {
	unit := string(readFile(t, "examples/systemd/caddy-groupcache.service"))
	section, seen := "", make(map[string]string)
	for n, line := range strings.Split(unit, "\n") {
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case regexp.MustCompile(`^\[[A-Z][a-z]+\]$`).MatchString(line):
			section = line
		case regexp.MustCompile(`^[A-Z][A-Za-z]+=\S`).MatchString(line) && section != "":
			key, value, _ := strings.Cut(line, "=")
			seen[section+key] = value
		default:
			t.Errorf("line %d: %s", n+1, line)
		}
	}
	for _, key := range []string{"[Unit]Description", "[Unit]After", "[Service]ExecStart", "[Service]ExecReload", "[Service]EnvironmentFile", "[Install]WantedBy"} {
		if seen[key] == "" {
			t.Errorf("it lacks %s", key)
		}
	}
	for _, key := range []string{"[Service]ExecStart", "[Service]ExecReload"} {
		var args []any
		for _, arg := range strings.Fields(seen[key])[1:] {
			args = append(args, arg)
		}
		checkArgs(t, args)
	}
	env := string(readFile(t, "examples/systemd/groupcache.env"))
	for _, m := range regexp.MustCompile(`\{(?:\$|env\.)([A-Z_]+)`).FindAllStringSubmatch(string(readFile(t, "examples/systemd/Caddyfile")), -1) {
		if !strings.Contains(env, "\n"+m[1]+"=") {
			t.Errorf("groupcache.env lacks %s", m[1])
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err == nil {
		// It also looks for the program and the file, which are not here.
		out, _ := exec.Command("systemd-analyze", "verify", "--man=no", "examples/systemd/caddy-groupcache.service").CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "Unknown") || strings.Contains(line, "Invalid") || strings.Contains(line, "Failed to parse") {
				t.Error(line)
			}
		}
	}
}

// TestExamplesStopBeforeTheyAreKilled: an open response, and the delay before that, must not
// take the time in which a node that stops hands over (3 seconds) and leaves (2 seconds).
func TestExamplesStopBeforeTheyAreKilled(t *testing.T) {
	const afterGrace = 5 * time.Second
	for config, supervisor := range map[string]struct {
		file, setting string
		byDefault     time.Duration
	}{
		"examples/systemd/Caddyfile":          {"examples/systemd/caddy-groupcache.service", `TimeoutStopSec=(\d+)`, 90 * time.Second},
		"examples/compose/Caddyfile":          {"examples/compose/compose.yaml", `stop_grace_period: (\d+)`, 10 * time.Second},
		"examples/kubernetes/groupcache.yaml": {"examples/kubernetes/groupcache.yaml", `terminationGracePeriodSeconds: (\d+)`, 30 * time.Second},
	} {
		patience := supervisor.byDefault
		if m := regexp.MustCompile(supervisor.setting).FindStringSubmatch(string(readFile(t, supervisor.file))); m != nil {
			patience, _ = time.ParseDuration(m[1] + "s")
		}
		m := regexp.MustCompile(`(?m)^\s*grace_period (\S+)$`).FindStringSubmatch(string(readFile(t, config)))
		if m == nil {
			t.Errorf("%s: no grace_period: it is without end", config)
			continue
		}
		var delay time.Duration
		if m := regexp.MustCompile(`(?m)^\s*shutdown_delay (\S+)$`).FindStringSubmatch(string(readFile(t, config))); m != nil {
			delay, _ = time.ParseDuration(m[1])
		}
		if grace, err := time.ParseDuration(m[1]); err != nil || delay+grace+afterGrace >= patience {
			t.Errorf("%s: shutdown_delay %v, grace_period %s and %v are not less than the %v after which it is killed", config, delay, m[1], afterGrace, patience)
		}
	}
}

// TestDockerfile: stages that are there, files that are there, and the Go that
// the module wants.
func TestDockerfile(t *testing.T) {
	var stages []string
	text := string(readFile(t, "Dockerfile"))
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch words[0] {
		case "FROM":
			if len(words) == 4 && words[2] == "AS" {
				stages = append(stages, words[3])
			}
			if version, ok := strings.CutPrefix(words[1], "golang:"); ok {
				version, _, _ = strings.Cut(version, "-")
				if !strings.Contains(string(readFile(t, "go.mod")), "\ngo "+version+".") {
					t.Errorf("it builds with Go %s", version)
				}
			}
		case "COPY":
			sources := words[1 : len(words)-1]
			if from, ok := strings.CutPrefix(words[1], "--from="); ok {
				if !slices.Contains(stages, from) {
					t.Errorf("there is no stage %s", from)
				}
				continue
			}
			for _, source := range sources {
				if _, err := os.Stat(source); err != nil {
					t.Error(err)
				}
			}
		case "ENV", "RUN", "WORKDIR", "EXPOSE":
		case "CMD":
			var args []any
			if err := yaml.Unmarshal([]byte(strings.TrimSpace(strings.TrimPrefix(line, "CMD"))), &args); err != nil {
				t.Error(err)
			}
			checkArgs(t, args)
		case "ENTRYPOINT":
			if strings.TrimSpace(line) != `ENTRYPOINT ["caddy"]` {
				t.Error(line)
			}
		default:
			t.Errorf("%s is no instruction", words[0])
		}
	}
	if _, err := os.Stat(filepath.FromSlash("cmd/caddy/main.go")); err != nil || !strings.Contains(text, "./cmd/caddy") {
		t.Error("it does not build cmd/caddy")
	}
}
