package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// The namespaces of the attacker.
const (
	evilNamespace  = "evil"
	evilNamespace2 = "evil-2"
)

var evilNamespaces = []string{evilNamespace, evilNamespace2}

// tenant is the attacker in an attack. It has a user of the API who may write everything in its namespaces, and network
// namespaces of pods in which it is root.
// Each attack gets a new tenant, so nothing of an attack stays for the next.
type tenant struct {
	api       *client // the tenant's own rights
	admin     *client // for the acts of the kubelet and of Multus
	runtime   *containerRuntime
	launcher  *launcher
	network   *lab.Lab // of its pods; not the victim's
	victim    *victim
	useSchema func(ctx context.Context, file string) error  // replaces the CRD of policies
	protect   func(ctx context.Context, install bool) error // installs or removes the component protect-network-status

	// loops counts the goroutines of loop; cancel ends them.
	loops  sync.WaitGroup
	cancel context.CancelFunc
	ctx    context.Context // of loops

	// mu guards the fields below
	mu sync.Mutex
	// running has the pods whose sandboxes undo must end
	running []*runningPod
	ends    []func() // at the end of the attack
	// hosts counts the hosts so far, for their addresses
	hosts   int
	policy0 []byte // the first policy, to try it on the shipped CRD
	claims  []claim
	notes   []string
	// faults make the attack count as broken
	faults []string

	rounds atomic.Int64 // of loops
}

// claim is something that an attack promises beyond the victim's measurements. It is checked after the attack.
type claim struct {
	says string
	fail func(ctx context.Context) error
}

// newTenant returns a tenant with a network in each of its namespaces. undo must be called at the end.
func (r *rig) newTenant(ctx context.Context) (*tenant, error) {
	t := &tenant{api: r.evil, admin: r.admin, runtime: r.runtime, victim: r.victim, launcher: r.launcher, useSchema: r.useSchema, protect: r.protect}
	t.ctx, t.cancel = context.WithCancel(ctx)
	var err error
	if t.network, err = lab.New(); err != nil {
		return nil, err
	}
	for _, ns := range evilNamespaces {
		if _, err := t.api.create(ctx, nads, ns, nadObject("net", `{"cniVersion": "0.3.1", "type": "macvlan"}`)); err != nil {
			return t, err
		}
	}
	return t, nil
}

// undo ends the attack: its loops, its pods, and all objects in its namespaces.
// The order matters: loops would create new objects, functions of atEnd may need the pods, and pods need the network.
func (t *tenant) undo(ctx context.Context) error {
	t.cancel()
	t.loops.Wait()
	t.mu.Lock()
	running, ends := t.running, t.ends
	t.running, t.ends = nil, nil
	t.mu.Unlock()
	for _, end := range ends {
		end()
	}
	t.endPods(ctx, running...)
	var errs []error
	for _, ns := range evilNamespaces {
		// An attack may have deleted the namespace, and the next attack needs it.
		if err := t.recreate(ctx, ns); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, resource := range []string{pods, policies, nads} {
			if err := t.admin.removeAll(ctx, resource, ns); err != nil {
				errs = append(errs, fmt.Errorf("remove %s: %w", resource, err))
			}
		}
	}
	return errors.Join(append(errs, t.network.Close())...)
}

// atEnd calls a function at the end of the attack, after the loops.
func (t *tenant) atEnd(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends = append(t.ends, f)
}

// recreate makes a namespace again if the attack deleted it.
func (t *tenant) recreate(ctx context.Context, ns string) error {
	return eventually(ctx, undoPatience, "namespace "+ns, func() error {
		data, err := t.admin.get(ctx, pathOf(namespaces, "", ns))
		switch {
		case apierrors.IsNotFound(err):
			return createNamespace(ctx, t.admin, ns)
		// A namespace that is being deleted refuses new objects until it is gone.
		case err == nil && strings.Contains(string(data), `"deletionTimestamp"`):
			return errors.New("it is being deleted")
		}
		return err
	})
}

// note adds a remark for the table.
// Equal remarks in a row are kept once: a loop repeats itself.
func (t *tenant) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := fmt.Sprintf(format, args...); len(t.notes) == 0 || t.notes[len(t.notes)-1] != n {
		t.notes = append(t.notes, n)
	}
}

// fault notes a promise that was broken.
func (t *tenant) fault(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, fmt.Sprintf(format, args...))
}

// claim adds a promise that is checked after the attack.
func (t *tenant) claim(says string, fail func(ctx context.Context) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.claims = append(t.claims, claim{says, fail})
}

// policy creates a policy in the namespace evil.
func (t *tenant) policy(ctx context.Context, name, networks string, spec any) error {
	return t.create(ctx, policies, evilNamespace, policyObject(name, networks, spec))
}

// create creates an object. It keeps the first policy.
// The first policy is kept as bytes, for the shipped CRD and the report.
func (t *tenant) create(ctx context.Context, resource, ns string, o any) error {
	body, err := encode(o)
	if err != nil {
		return err
	}
	if resource == policies {
		t.mu.Lock()
		if t.policy0 == nil {
			t.policy0 = body
		}
		t.mu.Unlock()
	}
	_, err = t.api.create(ctx, resource, ns, body)
	return err
}

// many calls f for 0..n-1, several at a time, and returns the first error.
// A worker stops at the first error of any worker. f may run in eight goroutines at a time.
func (t *tenant) many(n int, f func(i int) error) error {
	const workers = 8
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// loop calls f again and again until the end of the attack. f is told how often it was called. A request that the API
// server refuses is part of the attack.
// The loop has no pause of its own: it is as fast as the API server or the kernel allows.
func (t *tenant) loop(f func(ctx context.Context, i int) error) {
	t.loops.Go(func() {
		for i := 0; t.ctx.Err() == nil; i++ {
			if err := f(t.ctx, i); err != nil && t.ctx.Err() == nil {
				t.note("loop: %.150v", err)
			}
			t.rounds.Add(1)
		}
	})
}

// createNamespace creates a namespace, and gives its owner all rights in it.
// It succeeds if the namespace exists. The namespace victim belongs to the victim, every other namespace to the
// tenant.
func createNamespace(ctx context.Context, admin *client, name string) error {
	_, err := admin.create(ctx, namespaces, "", object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	user := tenantUser
	if name == victimNamespace {
		user = victimUser
	}
	return grant(ctx, admin, name, user)
}

// grant gives a user all rights in a namespace that a tenant can have. Subresources by which the cluster reports are not
// among them.
// So a tenant cannot write pods/status or pods/binding, by which Multus and the scheduler act.
func grant(ctx context.Context, admin *client, ns, user string) error {
	const rbac = "apis/rbac.authorization.k8s.io/v1/"
	group := "rbac.authorization.k8s.io"
	_, err := admin.create(ctx, rbac+"roles", ns, object{
		"apiVersion": group + "/v1", "kind": "Role", "metadata": object{"name": "owner"},
		"rules": []object{
			{"apiGroups": []string{""}, "resources": []string{
				"pods", "configmaps", "secrets", "services", "serviceaccounts", "persistentvolumeclaims", "events",
			}, "verbs": []string{"*"}},
			{"apiGroups": []string{"k8s.cni.cncf.io"}, "resources": []string{"*"}, "verbs": []string{"*"}},
		},
	})
	if err == nil {
		_, err = admin.create(ctx, rbac+"rolebindings", ns, object{
			"apiVersion": group + "/v1", "kind": "RoleBinding", "metadata": object{"name": "owner"},
			"roleRef":  object{"apiGroup": group, "kind": "Role", "name": "owner"},
			"subjects": []object{{"apiGroup": group, "kind": "User", "name": user}},
		})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
