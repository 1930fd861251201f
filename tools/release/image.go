package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Media types of the OCI image format.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// A descriptor names a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *ociPlatform      `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type ociPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// blobs are those of an image layout, by digest.
type blobs map[string][]byte

func (b blobs) add(mediaType string, content []byte) descriptor {
	digest := fmt.Sprintf("%x", sha256.Sum256(content))
	b[digest] = content
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}
}

func (b blobs) addJSON(mediaType string, v any) (descriptor, error) {
	content, err := json.Marshal(v)
	return b.add(mediaType, content), err
}

// image writes an OCI image layout for several platforms. It is the binary, the
// certificates of Mozilla's list, and the folders that Caddy writes to: no system,
// no shell, nothing that a package repository changes from day to day.
func (r *release) image(platforms []string, binaries map[string]string) error {
	config, err := r.git("show", r.revision+":Caddyfile.example")
	if err != nil {
		return err
	}
	b := make(blobs)
	common, err := r.layer(b, []member{
		{name: "config/", mode: 0o755}, {name: "config/caddy/", mode: 0o755},
		{name: "data/", mode: 0o755}, {name: "data/caddy/", mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "etc/caddy/", mode: 0o755}, {name: "etc/caddy/Caddyfile", mode: 0o644, content: config},
		{name: "etc/ssl/", mode: 0o755}, {name: "etc/ssl/certs/", mode: 0o755}, {name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: certificates()},
		{name: "tmp/", mode: 0o1777},
	})
	if err != nil {
		return err
	}
	var manifests []descriptor
	for _, platform := range platforms {
		binary, err := os.ReadFile(binaries[platform])
		if err != nil {
			return err
		}
		own, err := r.layer(b, []member{{name: "usr/", mode: 0o755}, {name: "usr/bin/", mode: 0o755}, {name: "usr/bin/caddy", mode: 0o755, content: binary}})
		if err != nil {
			return err
		}
		manifest, err := r.manifest(b, platform, []layer{common, own})
		if err != nil {
			return err
		}
		manifests = append(manifests, manifest)
	}
	index := func(of ...descriptor) map[string]any {
		return map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": of}
	}
	all, err := b.addJSON(typeIndex, index(manifests...))
	if err != nil {
		return err
	}
	number := strings.TrimPrefix(r.version, "v")
	all.Annotations = map[string]string{"org.opencontainers.image.ref.name": number, "io.containerd.image.name": program + ":" + number}
	entry, err := json.Marshal(index(all))
	if err != nil {
		return err
	}
	members := []member{
		{name: "oci-layout", mode: 0o644, content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", mode: 0o644, content: entry},
		{name: "blobs/", mode: 0o755}, {name: "blobs/sha256/", mode: 0o755},
	}
	for _, digest := range slices.Sorted(maps.Keys(b)) {
		members = append(members, member{name: "blobs/sha256/" + digest, mode: 0o644, content: b[digest]})
	}
	packed, err := archive(r.made, members)
	if err != nil {
		return err
	}
	return os.WriteFile(r.file("", "_image.tar"), packed, 0o644)
}

// A layer has a second digest, of what it is before it is compressed.
type layer struct {
	descriptor
	diffID string
}

func (r *release) layer(b blobs, members []member) (layer, error) {
	content, err := archive(r.made, members)
	if err != nil {
		return layer{}, err
	}
	diffID := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	if content, err = compress(content); err != nil {
		return layer{}, err
	}
	return layer{b.add(typeLayer, content), diffID}, nil
}

// manifest describes the image for one platform, with what the Dockerfile says.
func (r *release) manifest(b blobs, platform string, layers []layer) (descriptor, error) {
	system, arch, _ := strings.Cut(platform, "/")
	var diffIDs []string
	var descriptors []descriptor
	for _, l := range layers {
		diffIDs = append(diffIDs, l.diffID)
		descriptors = append(descriptors, l.descriptor)
	}
	config, err := b.addJSON(typeConfig, map[string]any{
		"created": r.made, "architecture": arch, "os": system,
		"config": map[string]any{
			"Env":          []string{"PATH=/usr/bin", "XDG_CONFIG_HOME=/config", "XDG_DATA_HOME=/data"},
			"Entrypoint":   []string{"caddy"},
			"Cmd":          []string{"run", "--config", "/etc/caddy/Caddyfile"},
			"ExposedPorts": map[string]any{"80/tcp": struct{}{}, "443/tcp": struct{}{}, "443/udp": struct{}{}, "7946/tcp": struct{}{}, "7946/udp": struct{}{}, "8000/tcp": struct{}{}},
			"Labels": map[string]string{
				"org.opencontainers.image.version":  strings.TrimPrefix(r.version, "v"),
				"org.opencontainers.image.source":   "https://" + modulePath,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffIDs},
		"history": []map[string]any{{"created": r.made, "comment": "files"}, {"created": r.made, "comment": "caddy"}},
	})
	if err != nil {
		return descriptor{}, err
	}
	manifest, err := b.addJSON(typeManifest, map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": descriptors})
	manifest.Platform = &ociPlatform{Architecture: arch, OS: system}
	return manifest, err
}

// certificates are the roots that Mozilla trusts without constraints, which a
// file of certificates could not express.
func certificates() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return out.Bytes()
}
