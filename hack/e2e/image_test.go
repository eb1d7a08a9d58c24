package main

import (
	"os"
	"strings"
	"testing"
)

// TestAgentImage checks that the kustomizations deploy the image that the test packs.
func TestAgentImage(t *testing.T) {
	text, err := os.ReadFile("image/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "value: "+agentImage+"\n") {
		t.Errorf("image/kustomization.yaml does not have %s", agentImage)
	}
}
