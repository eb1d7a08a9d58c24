package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// agentAccount is the agent's service account, as the API server names it.
const agentAccount = "system:serviceaccount:" + namespace + ":" + programName

// auditEvent is the part of a line of the API server's audit log that has the user, the request and the decision of
// RBAC (audit.k8s.io/v1, Event).
type auditEvent struct {
	Verb        string
	RequestURI  string
	User        struct{ Username string }
	ObjectRef   *struct{ APIGroup, Resource, Subresource string } // nil: the request is not for a resource
	Annotations map[string]string
}

// forbidden reports whether RBAC refused the request. The status code does not tell: a namespace in deletion refuses new objects
// with the same code.
func (e auditEvent) forbidden() bool {
	// A request without the annotation counts as refused.
	return e.Annotations["authorization.k8s.io/decision"] != "allow"
}

// right returns the right that the request needs, or "" if it is not for a resource.
func (e auditEvent) right() string {
	if e.ObjectRef == nil {
		return ""
	}
	resource := e.ObjectRef.Resource
	if e.ObjectRef.Subresource != "" {
		resource += "/" + e.ObjectRef.Subresource
	}
	return right(e.Verb, resource, e.ObjectRef.APIGroup)
}

// right returns the name of a right: a verb, a resource and its API group, for example "list pods" or "list
// multi-networkpolicies.k8s.cni.cncf.io". Names of granted and used rights can be compared.
func right(verb, resource, group string) string {
	return verb + " " + strings.Trim(resource+"."+group, ".")
}

// audit compares the rights of the agent's roles with the requests of all agents in the whole run, in both directions:
// a right that no agent used is a right too many. Informers use only watch with this API server. The command explain
// uses list, in the container of an agent.
// An unused right is harmless to the test and useful to an attacker who takes over the agent. A missing right could
// show only in a rare path, so the whole run counts: audit is the last step.
func (s *scenario) audit(ctx context.Context) error {
	granted, err := s.granted(ctx)
	if err != nil {
		return err
	}
	log, err := os.Open(filepath.Join(s.dir, "log/audit.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// The log has the requests of all agents since the start of the API server.
	used, refused, err := requests(log)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	for _, r := range granted {
		var err error
		if !used[r] {
			err = errors.New("its role grants it, and it has never done so")
		}
		s.check("rights: the agent uses "+r, err)
		// The used rights that remain are rights that no role grants.
		delete(used, r)
	}
	var errs []error
	for _, r := range slices.Sorted(maps.Keys(used)) {
		errs = append(errs, errors.New(r))
	}
	s.check("rights: the agent uses nothing that its roles do not grant", errors.Join(errs...))
	s.check("rights: the API server refuses no request of the agent", errors.Join(refused...))
	s.note("rights")
	return nil
}

// requests reads the audit log and returns the rights that the agents used, and their refused requests.
// Requests of other users are skipped.
func requests(log io.Reader) (used map[string]bool, refused []error, err error) {
	used = map[string]bool{}
	for decoder := json.NewDecoder(log); ; {
		var e auditEvent
		switch err := decoder.Decode(&e); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // the API server is writing the last line
			return used, refused, nil
		case err != nil:
			return nil, nil, err
		case e.User.Username != agentAccount:
		case e.forbidden():
			refused = append(refused, fmt.Errorf("%s %s", e.Verb, e.RequestURI))
		case e.right() != "":
			used[e.right()] = true
		}
	}
}

// granted returns the rights of the cluster roles that are bound to the agent's service account, sorted.
// Only bindings of cluster roles count, as the manifests have no others.
func (s *scenario) granted(ctx context.Context) ([]string, error) {
	var bindings struct {
		Items []struct {
			RoleRef  struct{ Name string }
			Subjects []struct{ Kind, Namespace, Name string }
		}
	}
	if err := s.read(ctx, &bindings, "clusterrolebindings"); err != nil {
		return nil, err
	}
	rights := map[string]bool{}
	for _, b := range bindings.Items {
		for _, subject := range b.Subjects {
			if subject.Kind+":"+subject.Namespace+":"+subject.Name != "ServiceAccount:"+namespace+":"+programName {
				continue
			}
			if err := s.roleRights(ctx, b.RoleRef.Name, rights); err != nil {
				return nil, err
			}
		}
	}
	if len(rights) == 0 {
		return nil, errors.New("no cluster role is bound to the agent")
	}
	return slices.Sorted(maps.Keys(rights)), nil
}

// roleRights adds the rights that a cluster role grants.
func (s *scenario) roleRights(ctx context.Context, name string, rights map[string]bool) error {
	var role struct {
		Rules []struct{ APIGroups, Resources, Verbs []string }
	}
	if err := s.read(ctx, &role, "clusterrole", name); err != nil {
		return err
	}
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					rights[right(verb, resource, group)] = true
				}
			}
		}
	}
	return nil
}
