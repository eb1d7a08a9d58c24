package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
)

// agentOptions are the flags of the agent.
// A zero value has no defaults: addFlags sets them.
type agentOptions struct {
	version   string // version of the program, for the metric build_info
	hostname  string // the name of the node, before it is normalized; empty: the host name
	nriSocket string // a path, "auto" or "none"
	// removeTaint removes agent.NotReadyTaint from the node when the agent is ready
	removeTaint bool
	api         apiOptions      // access to the API server
	runtime     runtimeOptions  // access to the container runtime
	table       tableOptions    // content of the tables
	endpoints   endpointOptions // addresses of the HTTP servers
}

// addFlags adds the flags of the agent; the groups of flags that other commands share are in flags.go.
func (o *agentOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.hostname, "hostname-override", "", "name of this node; without it, the host name")
	flags.BoolVar(&o.removeTaint, "remove-node-taint", false, "remove the taint "+agent.NotReadyTaint+" from this node when the agent is ready")
	flags.StringVar(&o.nriSocket, "nri-socket", sandbox.NRIAuto,
		"socket of the container runtime's NRI, with which rules are in force before a pod's first process: a path, "+
			"auto for the default socket if it exists, or none")
	o.api.addFlags(flags)
	o.runtime.addFlags(flags)
	o.table.addFlags(flags)
	o.endpoints.addFlags(flags)
}

// run runs the agent until the context ends. An address that cannot be parsed is a usage error; an address that cannot
// be bound is another error. An error about an address is reported with the name of its flag, which the package agent
// does not know.
func (o *agentOptions) run(ctx context.Context) error {
	// Errors of the command line come first, so that a mistyped flag ends the process at once.
	config, err := o.config()
	if err != nil {
		return err
	}
	for _, text := range o.table.warnings() {
		logr.FromContextOrDiscard(ctx).Info("Suspicious flag: " + text)
	}
	err = agent.Run(ctx, config)
	var address *agent.AddressError
	if errors.As(err, &address) {
		err = fmt.Errorf("--%s-bind-address %q: %w", address.Option, address.Address, address.Err)
		if address.IsMalformed() {
			err = usageError{err}
		}
	}
	return err
}

// config makes the configuration from the flags and from the files that they name.
// An error of the flags or files is found here, before the agent connects to anything. The error of restConfig is
// returned with an otherwise complete configuration.
func (o *agentOptions) config() (agent.Config, error) {
	node, err := o.node()
	if err != nil {
		return agent.Config{}, err
	}
	// The files of custom rules are read here, once: a change of a file needs a new agent.
	options, err := o.table.load(node)
	if err != nil {
		return agent.Config{}, err
	}
	server, err := o.api.restConfig()
	// A person who tries the program outside of a cluster learns how to see it work.
	if errors.Is(err, errNotInCluster) {
		return agent.Config{}, fmt.Errorf("%w (the demo needs no cluster: run `%s demo`)", err, program)
	}
	return agent.Config{
		Version: o.version, Server: server, Cache: options,
		RuntimeEndpoint: o.runtime.endpoint, HostPrefix: o.runtime.hostPrefix, NRISocket: o.nriSocket,
		MetricsAddress: o.endpoints.metrics, HealthAddress: o.endpoints.health, Profiles: o.endpoints.profiles,
		RemoveTaint: o.removeTaint,
	}, err
}

// node returns the name of this node: pods with this nodeName are local.
// The API server compares names exactly, so a name in another case would make every pod remote.
func (o *agentOptions) node() (string, error) {
	name := o.hostname
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("name of this node: %w", err)
		}
		name = host
	}
	// The kubelet normalizes the name under which it registers the node in the same way.
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" {
		return "", usageError{errors.New("--hostname-override: the name of this node is empty")}
	}
	return name, nil
}

// endpointOptions are the flags of the HTTP endpoints.
// metrics and health are addresses with a port, such as 127.0.0.1:10349; empty: no listener. profiles needs metrics.
type endpointOptions struct {
	metrics, health string
	profiles        bool
}

// addFlags adds the flags of the endpoints.
func (o *endpointOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.metrics, "metrics-bind-address", defaultMetricsAddress, "`address` and port of /metrics; empty: none")
	flags.StringVar(&o.health, "health-bind-address", defaultHealthAddress, "`address` and port of /livez and /readyz; empty: none")
	flags.BoolVar(&o.profiles, "enable-pprof", false, "serve profiles of the agent at /debug/pprof/, on the address of /metrics")
}
