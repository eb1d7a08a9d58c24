package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// policyFiles hold policies that the CRD must accept: all policies of the pages, the examples and the demo.
// The paths are patterns, relative to the project's folder.
var policyFiles = []string{"README.md", "docs/*.md", "manifests/examples/*.yaml", "internal/demo/files/policies/*.yaml"}

// schema checks in dry runs that the CRD accepts valid policies, and refuses invalid policies with the expected message.
func (s *scenario) schema(ctx context.Context) error {
	_, err := s.kubectl(ctx, "wait", "--for=condition=Established", "crd/multi-networkpolicies.k8s.cni.cncf.io")
	s.check("schema: the API server serves the CRD", err)
	for _, p := range invalidPolicies {
		s.check("schema: refuses "+p.name, s.refuses(ctx, p.spec, p.message))
	}
	for _, p := range validPolicies {
		policy, err := parseObject("spec: " + p.spec)
		if err == nil {
			err = s.dryRun(ctx, policy)
		}
		s.check("schema: accepts "+p.name, err)
	}
	files, err := policiesOf(s.root)
	s.check("schema: the project's policies can be read", err)
	for _, f := range files {
		s.check(fmt.Sprintf("schema: accepts the policies of %s, %d", f.name, len(f.policies)), s.dryRun(ctx, f.policies...))
	}
	s.note("schema")
	return nil
}

// refuses returns an error unless the API server refuses a policy with the spec, with a message that contains the text.
// The dry run of the server validates as a create does, and stores nothing.
func (s *scenario) refuses(ctx context.Context, spec, message string) error {
	policy, err := parseObject("spec: " + spec)
	if err != nil {
		return err
	}
	switch err := s.dryRun(ctx, policy); {
	case err == nil:
		return errors.New("it is accepted")
	case !strings.Contains(err.Error(), message):
		return fmt.Errorf("the message is %w, want %q", err, message)
	}
	return nil
}

// store stores an invalid policy under the published CRD, as in a cluster that had the policy first. The project's CRD
// then replaces the published schema.
// The published CRD has no such checks, so its policies may be invalid by the project's CRD.
func (s *scenario) store(ctx context.Context, file string) error {
	published, err := s.output(ctx, "go", "list", "-m", "-f", "{{.Dir}}/scheme.yml", "github.com/k8snetworkplumbingwg/multi-networkpolicy")
	if err != nil {
		return err
	}
	if err := s.must(ctx, "apply", "-f", strings.TrimSpace(string(published))); err != nil {
		return err
	}
	// The API server takes a moment to use a new schema.
	if err := s.eventually(ctx, func() error { return s.must(ctx, "apply", "-f", file) }); err != nil {
		return err
	}
	if err := s.must(ctx, "apply", "-f", "manifests/base/crd.yaml"); err != nil {
		return err
	}
	s.check("stored policy: the CRD refuses a new one like it", s.eventually(ctx, func() error {
		err := s.must(ctx, "create", "--dry-run=server", "-f", file)
		if err != nil && strings.Contains(err.Error(), "is invalid") {
			return nil
		}
		return errors.Join(errors.New("it is not refused as invalid"), err)
	}))
	s.check("stored policy: its labels can be changed", s.must(ctx, "label", "-f", file, "stored=before"))
	return nil
}

// dryRun applies policies without storing them. It gives each its own name in the namespace default.
// The kind, the version and the metadata are the same for each policy, so a spec is enough.
func (s *scenario) dryRun(ctx context.Context, policies ...map[string]any) error {
	var manifest bytes.Buffer
	for i, p := range policies {
		p["apiVersion"], p["kind"] = "k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"
		p["metadata"] = map[string]any{"namespace": "default", "name": fmt.Sprintf("policy-%d", i)}
		text, err := yaml.Marshal(p)
		if err != nil {
			return err
		}
		fmt.Fprintf(&manifest, "---\n%s", text)
	}
	file := filepath.Join(s.dir, "policies.yaml")
	if err := os.WriteFile(file, manifest.Bytes(), 0o600); err != nil {
		return err
	}
	_, err := s.kubectl(ctx, "apply", "--dry-run=server", "-f", file)
	return err
}

// policyFile is a file of the project with its policies.
// The name is the path below the project's folder.
type policyFile struct {
	name     string
	policies []map[string]any
}

// policiesOf reads the policies of policyFiles. It leaves out files without policies.
// An object that cannot be parsed is an error.
func policiesOf(root string) (files []policyFile, err error) {
	for _, pattern := range policyFiles {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			f := policyFile{name: strings.TrimPrefix(path, root+"/")}
			if f.policies, err = policiesIn(path, string(text)); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			if len(f.policies) > 0 {
				files = append(files, f)
			}
		}
	}
	return files, nil
}

// yamlBlock matches a block of YAML in a page.
var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// policiesIn returns the policies in the text of a manifest, or in the YAML blocks of a page.
// Documents of other kinds are left out.
func policiesIn(path, text string) (policies []map[string]any, err error) {
	blocks := []string{text}
	if filepath.Ext(path) == ".md" {
		blocks = nil
		for _, b := range yamlBlock.FindAllStringSubmatch(text, -1) {
			blocks = append(blocks, b[1])
		}
	}
	for _, block := range blocks {
		for _, document := range strings.Split(block, "---\n") {
			if !strings.Contains(document, "kind: MultiNetworkPolicy\n") {
				continue
			}
			policy, err := parseObject(document)
			if err != nil {
				return nil, err
			}
			policies = append(policies, policy)
		}
	}
	return policies, nil
}

// parseObject parses an object of any kind. A key twice in a mapping is an error.
func parseObject(text string) (map[string]any, error) {
	var o map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &o); err != nil {
		return nil, fmt.Errorf("%w in\n%s", err, text)
	}
	return o, nil
}
