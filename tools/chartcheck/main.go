// Command chartcheck checks a Helm chart by Helm's own loader, linter and engine,
// without a cluster and without the rest of Helm.
//
//	chartcheck -same MANIFESTS CHART OUTPUT
//
// The chart is rendered with its default values and with each values file in its
// folder ci. A warning of the linter, a value that the schema doesn't have and a
// template that names a missing value are errors. A selector has to select the
// pods of the chart. With the default values the chart has to be what stands in
// MANIFESTS, but for the labels and the annotation that Helm adds.
//
// The folder OUTPUT/<values> then has manifests.yaml, for kubecheck, and the
// Caddyfile of the ConfigMap, for caddy validate.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// release is a name that leads to the names in the manifests.
const release = "groupcache"

func main() {
	same := flag.String("same", "", "the manifests that the chart has to render to")
	flag.Parse()
	if flag.NArg() != 2 || *same == "" {
		fmt.Fprintln(os.Stderr, "usage: chartcheck -same MANIFESTS CHART OUTPUT")
		os.Exit(2)
	}
	if err := check(flag.Arg(0), flag.Arg(1), *same); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
}

func check(chart, output, same string) error {
	files, err := filepath.Glob(filepath.Join(chart, "ci", "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range append([]string{""}, files...) {
		name, values := "default", map[string]any{}
		if file != "" {
			name = strings.TrimSuffix(filepath.Base(file), ".yaml")
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := yaml.UnmarshalStrict(text, &values); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		text, err := render(chart, values)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		objects, err := read(bytes.NewReader(text))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := selectors(objects); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := write(filepath.Join(output, name), text, objects); err != nil {
			return err
		}
		if file == "" {
			if err := compare(objects, same); err != nil {
				return err
			}
		}
		fmt.Printf("%s: %s: %d objects\n", chart, name, len(objects))
	}
	return nil
}

// render returns what "helm lint --strict" and "helm template" return.
func render(dir string, values map[string]any) ([]byte, error) {
	for _, message := range lint.RunAll(dir, values, "default").Messages {
		if message.Severity != support.InfoSev {
			return nil, message
		}
	}
	chart, err := loader.Load(dir)
	if err != nil {
		return nil, err
	}
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: release, Namespace: "default", Revision: 1, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Engine{Strict: true}.RenderWithContext(context.Background(), chart, all)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, text := range rendered {
		if path.Ext(name) == ".yaml" && strings.TrimSpace(text) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", name, strings.TrimSpace(rendered[name]))
	}
	return out.Bytes(), nil
}

// read returns the objects of a file by kind and name.
func read(r io.Reader) (map[string]map[string]any, error) {
	objects := make(map[string]map[string]any)
	documents := kubeyaml.NewYAMLReader(bufio.NewReader(r))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		var object map[string]any
		if err := yaml.UnmarshalStrict(document, &object); err != nil {
			return nil, err
		}
		if object == nil {
			continue
		}
		id := fmt.Sprint(object["kind"], " ", at(object, "metadata")["name"])
		if objects[id] != nil {
			return nil, fmt.Errorf("%s is there twice", id)
		}
		objects[id] = object
	}
}

// at returns the map at a path of keys, or nil.
func at(object map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		object, _ = object[key].(map[string]any)
	}
	return object
}

// selectors checks that each selector of the chart's own pods has all of their
// labels, the name of the release among them: two releases are two clusters.
func selectors(objects map[string]map[string]any) error {
	var labels map[string]any
	for _, object := range objects {
		if object["kind"] == "StatefulSet" {
			labels = at(object, "spec", "template", "metadata", "labels")
		}
	}
	if labels["app.kubernetes.io/instance"] != release {
		return fmt.Errorf("the pods have the labels %v", labels)
	}
	for id, object := range objects {
		var selector map[string]any
		switch object["kind"] {
		case "Service":
			selector = at(object, "spec", "selector")
		case "StatefulSet", "PodDisruptionBudget":
			selector = at(object, "spec", "selector", "matchLabels")
		case "NetworkPolicy":
			selector = at(object, "spec", "podSelector", "matchLabels")
		default:
			continue
		}
		if !reflect.DeepEqual(selector, labels) {
			return fmt.Errorf("%s selects %v, and the pods have the labels %v", id, selector, labels)
		}
	}
	return nil
}

func write(dir string, text []byte, objects map[string]map[string]any) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifests.yaml"), text, 0o644); err != nil {
		return err
	}
	for _, object := range objects {
		if config, ok := at(object, "data")["Caddyfile"].(string); ok {
			return os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(config), 0o644)
		}
	}
	return errors.New("no ConfigMap has a Caddyfile")
}

// compare wants the objects of a file, neither more nor less.
func compare(objects map[string]map[string]any, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	wanted, err := read(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for id := range objects {
		if wanted[id] == nil {
			return fmt.Errorf("%s is not in %s", id, file)
		}
	}
	for id, want := range wanted {
		got := withoutHelm(objects[id])
		if !reflect.DeepEqual(got, any(want)) {
			a, _ := yaml.Marshal(got)
			b, _ := yaml.Marshal(want)
			return fmt.Errorf("%s is\n%s\nand in %s\n%s", id, a, file, b)
		}
	}
	return nil
}

// withoutHelm leaves out what Helm's conventions add to manifests, and a map
// that then is empty.
func withoutHelm(v any) any {
	switch v := v.(type) {
	case map[string]any:
		kept := make(map[string]any, len(v))
		for key, value := range v {
			switch key {
			case "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart", "checksum/config":
				continue
			}
			value = withoutHelm(value)
			if m, ok := value.(map[string]any); ok && len(m) == 0 && key == "annotations" {
				continue
			}
			if key == "labels" && reflect.DeepEqual(value, map[string]any{"app.kubernetes.io/name": "groupcache"}) && v["name"] != nil {
				continue // the labels of an object itself: the manifests have none
			}
			kept[key] = value
		}
		return kept
	case []any:
		kept := make([]any, len(v))
		for i := range v {
			kept[i] = withoutHelm(v[i])
		}
		return kept
	}
	return v
}
