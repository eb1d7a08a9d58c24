package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
)

// sandboxInfo holds the two ways to a sandbox's network namespace. The runtime gives at least one of them.
type sandboxInfo struct {
	netNS string // path of the network namespace on the host; empty: unknown
	pid   int    // first process of the sandbox, in the host's PID namespace; 0: none
}

// errNetNSClosed is the error for a sandbox with a network that is torn down already.
var errNetNSClosed = errors.New("the network namespace is closed")

// parseSandboxInfo reads the info map of a verbose PodSandboxStatus. CRI does not define its content. containerd and CRI-O put a
// JSON document under "info", with the OCI spec of the sandbox container. containerd adds its own record of the network
// namespace, which is the only source if the sandbox is no container. CRI-O gives no process if it runs sandboxes without an
// infra container.
func parseSandboxInfo(info map[string]string) (sandboxInfo, error) {
	raw, ok := info["info"]
	if !ok {
		return sandboxInfo{}, errors.New("the runtime gives no verbose info")
	}
	// Only the fields that are needed. Names as containerd and CRI-O write them.
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
	// The OCI spec wins over containerd's own record: it is the namespace that the sandbox was started with.
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
