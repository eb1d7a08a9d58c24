package main

import "testing"

// TestPoliciesOf checks that policiesOf finds the policies of the project.
func TestPoliciesOf(t *testing.T) {
	files, err := policiesOf("../..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, f := range files {
		found[f.name] = len(f.policies)
	}
	if found["docs/examples.md"] < 12 || found["manifests/examples/web-policy.yaml"] != 1 {
		t.Errorf("found %v", found)
	}
}

// TestSchemaCases checks that every spec is YAML.
func TestSchemaCases(t *testing.T) {
	for _, p := range invalidPolicies {
		if _, err := parseObject("spec: " + p.spec); err != nil || p.message == "" {
			t.Errorf("%s: message %q, %v", p.name, p.message, err)
		}
	}
	for _, p := range validPolicies {
		if _, err := parseObject("spec: " + p.spec); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
}
