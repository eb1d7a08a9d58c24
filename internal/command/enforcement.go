package command

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement/query"
)

// enforcementOptions are the flags of enforcement.
type enforcementOptions struct {
	client        clientOptions
	agents        agentsOptions
	output        outputOptions
	policy        string // as given: NAMESPACE/NAME or NAME; empty: all policies of the namespace
	allNamespaces bool
	timeout       time.Duration
}

// newEnforcement returns the command enforcement.
func newEnforcement(p Program) *cobra.Command {
	var o enforcementOptions
	cmd := &cobra.Command{
		Use:   "enforcement [POLICY | NAMESPACE/POLICY]",
		Short: "Shows in which pods and on which nodes policies are enforced, since when, and why not elsewhere",
		Long: `Shows a line for each policy and each pod that the policy selects, those that are not enforced first: the state, the node, since
when the kernel there has the rules of the policy in their present form, and the reason if it has not. Without POLICY, it shows all
policies of the namespace, or of all namespaces with -A.

It asks the API server for the policies and pods, and then, with port-forward, the agent of each node that has such a pod. A node
without an agent, and an agent that gives no answer, are in the output. Your user needs the right to list policies, and pods in
the namespaces of the policies and of the agent, and the verbs get and create for pods/portforward in the namespace of the agent.

The states are NotEnforced, Unknown (no answer about the pod), Enforced, and NoEffect (there is nothing to enforce in the pod).

The exit code is 0 if no state is NotEnforced or Unknown, 1 if any is, and 2 for an error or an invalid command line.`,
		Example: p.examples("enforcement web-policy -n shop", "enforcement shop/web-policy -o json", "enforcement -A"),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{errors.New("enforcement takes at most one policy")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.policy = strings.Join(args, "")
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	o.client.addFlags(flags)
	o.output.addFlags(cmd, "text", "json", "yaml")
	flags.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "all policies of all namespaces")
	o.agents.addFlags(flags)
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "time for the answer of an agent")
	o.client.complete(cmd)
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return o.policyNames(args, begin), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// run asks the cluster and prints the answer. An answer with a policy that is not enforced is exit code 1.
func (o *enforcementOptions) run(ctx context.Context, out io.Writer) error {
	q, err := o.question()
	if err == nil {
		err = o.output.check()
	}
	if err != nil {
		return err
	}
	r, err := query.Ask(ctx, q)
	if err != nil {
		return troubleError{err}
	}
	if err := o.output.write(out, r, r.WriteTable); err != nil {
		return troubleError{err}
	}
	if !r.IsEnforced() {
		return exitCode(1)
	}
	return nil
}

// question reads the flags.
func (o *enforcementOptions) question() (query.Question, error) {
	q := query.Question{AgentNamespace: o.agents.namespace, AgentPort: o.agents.port, Timeout: o.timeout}
	switch {
	case o.allNamespaces && o.policy != "":
		return q, usageError{errors.New("--all-namespaces is for all policies, without POLICY")}
	case o.allNamespaces && o.client.namespace != "":
		return q, usageError{errors.New("--all-namespaces and --namespace exclude each other")}
	case o.timeout <= 0:
		return q, usageError{errors.New("--timeout: must be more than 0")}
	}
	var err error
	if !o.allNamespaces {
		if q.Namespace, err = o.client.currentNamespace(); err != nil {
			return q, troubleError{err}
		}
	}
	q.Policy = o.policy
	if namespace, name, found := strings.Cut(o.policy, "/"); found {
		q.Namespace, q.Policy = namespace, name
		if namespace == "" || name == "" || strings.Contains(name, "/") {
			return q, usageError{errors.New("the policy must be NAME or NAMESPACE/NAME")}
		}
	}
	if q.Config, err = o.client.restConfig(); err != nil {
		return q, troubleError{err}
	}
	return q, nil
}

// policyNames returns the names of policies that continue the word, for a completion.
func (o *enforcementOptions) policyNames(args []string, begin string) (names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	q, err := o.question()
	if err != nil || len(args) > 0 || o.allNamespaces {
		return nil
	}
	all, err := query.PolicyNames(ctx, q.Config, q.Namespace)
	if err != nil {
		return nil
	}
	for _, name := range all {
		if strings.HasPrefix(name, begin) {
			names = append(names, name)
		}
	}
	return names
}
