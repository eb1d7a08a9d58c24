package command

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// apiOptions are the flags of the agent for access to the API server.
type apiOptions struct{ kubeconfig string }

// addFlags adds --kubeconfig.
func (o *apiOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; without it, the pod's service account")
}

// restConfig returns the configuration of --kubeconfig, or else of the pod's service account.
// Both configurations have the name of the program as the user agent. errNotInCluster is returned if the process has
// neither.
func (o *apiOptions) restConfig() (*rest.Config, error) {
	if o.kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, kubeconfigError(o.kubeconfig, err)
		}
		return rest.AddUserAgent(config, program), nil // the API server sees the program's name in its audit log
	}
	config, err := rest.InClusterConfig()
	switch {
	case errors.Is(err, rest.ErrNotInCluster):
		return nil, fmt.Errorf("%w: --kubeconfig must name a file", errNotInCluster)
	case err != nil:
		return nil, fmt.Errorf("service account of the pod: %w", err)
	}
	return rest.AddUserAgent(config, program), nil
}

// errNotInCluster is the error of a process without a kubeconfig and without a service account.
// Commands add their own advice to it.
var errNotInCluster = errors.New("not in a cluster")

// clientOptions are the flags for access to a cluster from any machine. They have the same meaning as in kubectl.
type clientOptions struct{ kubeconfig, context, namespace string }

// addFlags adds the flags.
func (o *clientOptions) addFlags(flags *pflag.FlagSet) {
	o.addClusterFlags(flags)
	flags.StringVarP(&o.namespace, "namespace", "n", "",
		"namespace of names without one; without it, the namespace of the context, or default for manifests")
}

// addClusterFlags adds the flags that select the cluster.
func (o *clientOptions) addClusterFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.kubeconfig, "kubeconfig", "",
		"kubeconfig file; without it, $KUBECONFIG, ~/.kube/config or the pod's service account")
	flags.StringVar(&o.context, "context", "", "`name` of the context in the kubeconfig; without it, the current context")
}

// agentsOptions are the flags about the pods of the agents, for commands that ask agents of the cluster.
type agentsOptions struct {
	namespace string
	port      uint16
}

// addFlags adds the flags.
func (o *agentsOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.namespace, "agent-namespace", "multi-networkpolicy-system", "namespace of the agent's pods")
	flags.Uint16Var(&o.port, "agent-port", 10356, "port of the agents' --health-bind-address")
}

// config returns the configuration, which is loaded at its first use.
func (o *clientOptions) config() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	rules.WarnIfAllMissing = false // restConfig returns an error
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context})
}

// restConfig returns the configuration of a client, with the name of the program as the user agent.
func (o *clientOptions) restConfig() (*rest.Config, error) {
	if err := o.checkContext(); err != nil {
		return nil, err
	}
	config, err := o.config().ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, fmt.Errorf("%w: --kubeconfig or $KUBECONFIG must name a file, or -f manifests", errNotInCluster)
	case err != nil:
		return nil, kubeconfigError(o.kubeconfig, err)
	}
	return rest.AddUserAgent(config, program), nil
}

// checkContext returns an error if the kubeconfig can be read and lacks the context of --context.
func (o *clientOptions) checkContext() error {
	raw, err := o.config().RawConfig()
	if err != nil || o.context == "" || raw.Contexts[o.context] != nil {
		return nil //nolint:nilerr // the caller reads the kubeconfig again, and reports the error
	}
	return fmt.Errorf("--context %s: the kubeconfig has no such context%s", o.context,
		didYouMean(o.context, slices.Sorted(maps.Keys(raw.Contexts))))
}

// currentNamespace returns the namespace of -n, or else of the context, or else default.
func (o *clientOptions) currentNamespace() (string, error) {
	if o.namespace != "" {
		return o.namespace, nil
	}
	if err := o.checkContext(); err != nil {
		return "", err
	}
	namespace, _, err := o.config().Namespace()
	if clientcmd.IsEmptyConfig(err) {
		return metav1.NamespaceDefault, nil
	}
	if err != nil {
		return "", kubeconfigError(o.kubeconfig, err)
	}
	return namespace, nil
}

// kubeconfigError returns the error about a kubeconfig. The file is empty if --kubeconfig was not given. The text of a file that is
// no kubeconfig has the names of Go's types, so only errors of the file system and of the content are kept.
func kubeconfigError(file string, err error) error {
	where := "kubeconfig"
	if file != "" {
		where = "--kubeconfig " + file
	}
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("read %s: %w", where, path.Err)
	case clientcmd.IsConfigurationInvalid(err), clientcmd.IsContextNotFound(err):
		return fmt.Errorf("%s: %w", where, err)
	}
	return fmt.Errorf("%s: the file is not a kubeconfig", where)
}
