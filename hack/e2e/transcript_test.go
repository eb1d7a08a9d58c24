package main

import (
	"os"
	"testing"
)

// TestTranscript reads the page that make e2e plays. It needs no cluster.
func TestTranscript(t *testing.T) {
	page, err := os.ReadFile("../../" + transcriptPage)
	if err != nil {
		t.Fatal(err)
	}
	parts := readTranscript(string(page))
	if got := writeTranscript(parts); got != string(page) {
		t.Errorf("the page is written as\n%s", got)
	}
	first, last, commands := "", "", 0
	for _, p := range parts {
		if p.command == "" {
			continue
		}
		if commands++; first == "" {
			first = p.command
		}
		if last = p.command; p.output == "" && p.command != "sleep 3" {
			t.Errorf("%s has no output", p.command)
		}
	}
	if first != "kubectl apply -f install.yaml" || last != transcriptEnd || commands < 20 {
		t.Errorf("%d commands, from %q to %q", commands, first, last)
	}
}

func TestReadTranscript(t *testing.T) {
	const page = "a\n```console\n$ a & \\\n    b\nc\n\n$ d\n```\n```\n$ e\n```\n"
	var commands []part
	for _, p := range readTranscript(page) {
		if p.command != "" {
			commands = append(commands, p)
		}
	}
	if len(commands) != 2 || commands[0].command != "a & b" || commands[0].output != "c\n\n" || commands[1].command != "d" || commands[1].output != "" {
		t.Errorf("%+v", commands)
	}
}

// TestNormalized compares outputs that differ only in their variable parts, and outputs that differ in more.
func TestNormalized(t *testing.T) {
	const drop = "12:04:31.512 DROPPED quick-start/server: tcp 10.77.0.3:49152 > 10.77.0.2:8080, ingress on net1\n"
	for _, tc := range []struct {
		command, a, b string
		equal         bool
	}{
		{"drops & get", drop + "x\n", "x\n01:00:00.000" + drop[12:] + "01:00:01.000" + drop[12:], true},
		{"drops", drop + "x\n", "x\n" + drop, false},
		{"drops", drop, "12:04:31.512 DROPPED quick-start/server: tcp 10.77.0.3:49152 > 10.77.0.2:80, ingress on net1\n", false},
		{"drops", drop, "12:04:31.512 AUDITED" + drop[20:], false},
		{"enforcement", "POD     NODE   SINCE\nserver  node1  3s    -\n", "POD     NODE   SINCE\nserver  node2  1m12s -\n", false},
		{"enforcement", "POD     NODE   SINCE\nserver  node1  3s     -\n", "POD     NODE   SINCE\nserver  node2  1m12s  -\n", true},
		{"rollout", "done\n", "Waiting for 2 pods\ndone\n", true},
		{"rollout", "done\n", "", false},
	} {
		if got := normalized(tc.command, tc.a) == normalized(tc.command, tc.b); got != tc.equal {
			t.Errorf("%s: %q and %q are equal: %t, want %t", tc.command, tc.a, tc.b, got, tc.equal)
		}
	}
}
