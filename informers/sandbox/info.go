package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
)

// sandboxInfo is what a runtime says of a sandbox beyond CRI itself, in the verbose status.
type sandboxInfo struct {
	netNS string // the path of the network namespace on the host, if told
	pid   int    // of the sandbox's first process on the host, 0 if it has none
}

// errNetNSClosed is a sandbox whose network is already torn down.
var errNetNSClosed = errors.New("the network namespace is closed")

// parseSandboxInfo reads the info map of a verbose PodSandboxStatus. CRI leaves its content open. Both containerd and
// CRI-O put one JSON document under "info", with the OCI spec of the sandbox container in it; containerd has its own
// record of the network namespace beside it, which is all there is when the sandbox is no container. CRI-O has no
// process when it runs sandboxes without an infra container.
func parseSandboxInfo(info map[string]string) (sandboxInfo, error) {
	raw, ok := info["info"]
	if !ok {
		return sandboxInfo{}, errors.New("the runtime gives no verbose info")
	}
	var document struct {
		PID                int  `json:"pid"`
		NetNamespaceClosed bool `json:"netNamespaceClosed"`
		RuntimeSpec        struct {
			Linux struct {
				Namespaces []struct {
					Type string `json:"type"`
					Path string `json:"path"`
				} `json:"namespaces"`
			} `json:"linux"`
		} `json:"runtimeSpec"`
		SandboxMetadata struct {
			Metadata struct {
				NetNSPath string
			}
		} `json:"sandboxMetadata"`
	}
	if err := json.Unmarshal([]byte(raw), &document); err != nil {
		return sandboxInfo{}, fmt.Errorf("the runtime's verbose info: %w", err)
	}
	if document.NetNamespaceClosed {
		return sandboxInfo{}, errNetNSClosed
	}
	found := sandboxInfo{netNS: document.SandboxMetadata.Metadata.NetNSPath, pid: max(document.PID, 0)}
	for _, ns := range document.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" && ns.Path != "" {
			found.netNS = ns.Path
		}
	}
	if found == (sandboxInfo{}) {
		return sandboxInfo{}, errors.New("the runtime's verbose info names neither a network namespace nor a process")
	}
	return found, nil
}
