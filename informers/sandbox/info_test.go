package sandbox

import (
	"errors"
	"strings"
	"testing"
)

// The documents have the shape of the documents of real runtimes, without the parts that the parser ignores.
const (
	containerdInfo = `{
		"pid": 1234, "processStatus": "running", "netNamespaceClosed": false,
		"image": "registry.k8s.io/pause:3.10", "snapshotKey": "5e1f", "snapshotter": "overlayfs",
		"runtimeHandler": "", "runtimeType": "io.containerd.runc.v2",
		"runtimeOptions": {"systemd_cgroup": true},
		"config": {
			"metadata": {"name": "web", "uid": "u1", "namespace": "shop"},
			"linux": {"security_context": {"namespace_options": {"pid": 1}}}
		},
		"runtimeSpec": {
			"ociVersion": "1.2.0", "hostname": "web",
			"process": {"user": {"uid": 65535, "gid": 65535}, "args": ["/pause"], "cwd": "/"},
			"linux": {
				"resources": {"cpu": {"shares": 2}},
				"namespaces": [
					{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
					{"type": "network", "path": "/var/run/netns/cni-6d0cf9d5-2b66-0d3a-51ae-2f8a0c0e3d5b"}
				]
			}
		},
		"cniResult": {"Interfaces": {"eth0": {"IPConfigs": [{"IP": "10.244.0.5"}], "Sandbox": "/var/run/netns/other"}}}
	}`
	containerdSandboxAPIInfo = `{
		"pid": 0, "processStatus": "SANDBOX_READY", "netNamespaceClosed": false, "runtimeSpec": null,
		"sandboxMetadata": {"Version": "v1", "Metadata": {
			"ID": "5e1f", "Name": "web_shop_u1_0", "NetNSPath": "/var/run/netns/cni-1", "IP": "10.244.0.5"
		}}
	}`
	crioInfo = `{
		"image": "registry.k8s.io/pause:3.10", "pid": 4321,
		"runtimeSpec": {
			"ociVersion": "1.2.0",
			"annotations": {"io.kubernetes.cri-o.ContainerType": "sandbox"},
			"linux": {"namespaces": [
				{"type": "pid"}, {"type": "network", "path": "/var/run/netns/3f9e"}, {"type": "ipc", "path": "/var/run/ipcns/3f9e"}
			]}
		}
	}`
	crioSpoofedInfo = `{"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": "/run/netns/3f9e"}]}}}`
)

func TestParseSandboxInfo(t *testing.T) {
	for _, tc := range []struct {
		name string
		info map[string]string
		want sandboxInfo
		err  string
	}{
		{"containerd", map[string]string{"info": containerdInfo},
			sandboxInfo{"/var/run/netns/cni-6d0cf9d5-2b66-0d3a-51ae-2f8a0c0e3d5b", 1234}, ""},
		{"containerd, sandbox that is no container", map[string]string{"info": containerdSandboxAPIInfo},
			sandboxInfo{"/var/run/netns/cni-1", 0}, ""},
		{"CRI-O", map[string]string{"info": crioInfo}, sandboxInfo{"/var/run/netns/3f9e", 4321}, ""},
		{"CRI-O without infra container", map[string]string{"info": crioSpoofedInfo}, sandboxInfo{"/run/netns/3f9e", 0}, ""},
		{"no path, only a process", map[string]string{"info": `{"pid": 7, "runtimeSpec": {"linux": {"namespaces": [
			{"type": "network"}]}}}`}, sandboxInfo{"", 7}, ""},
		{"closed", map[string]string{"info": `{"pid": 7, "netNamespaceClosed": true}`}, sandboxInfo{}, errNetNSClosed.Error()},
		{"neither", map[string]string{"info": `{"pid": 0}`}, sandboxInfo{}, "neither"},
		{"negative process", map[string]string{"info": `{"pid": -1}`}, sandboxInfo{}, "neither"},
		{"not verbose", nil, sandboxInfo{}, "no verbose info"},
		{"no JSON", map[string]string{"info": "pid=7"}, sandboxInfo{}, "verbose info"},
		{"other types", map[string]string{"info": `{"pid": "7"}`}, sandboxInfo{}, "verbose info"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseSandboxInfo(tc.info)
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got error %v, want %q", err, tc.err)
			}
		})
	}
}

// Whatever a runtime says, the result is a path, a process, or an error.
func FuzzSandboxInfo(f *testing.F) {
	for _, s := range []string{containerdInfo, containerdSandboxAPIInfo, crioInfo, crioSpoofedInfo, "null", "[]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, document string) {
		got, err := parseSandboxInfo(map[string]string{"info": document})
		switch {
		case err != nil && got != (sandboxInfo{}):
			t.Errorf("%+v with error %v", got, err)
		case err == nil && got.netNS == "" && got.pid <= 0:
			t.Errorf("neither a path nor a process: %+v", got)
		case errors.Is(err, errNetNSClosed) && !strings.Contains(strings.ToLower(document), "netnamespaceclosed"):
			t.Errorf("closed, says who? %s", document)
		}
	})
}
