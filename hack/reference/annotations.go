package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// annotation describes an annotation, in Markdown.
type annotation struct{ object, writer, values, effect string }

// annotations has the annotations that the agent reads or writes, by name.
var annotations = map[string]annotation{
	"k8s.v1.cni.cncf.io/policy-for": {
		"MultiNetworkPolicy", "whoever may write policies in the namespace",
		"names of networks, separated by commas: NAME in the namespace of the policy, or NAMESPACE/NAME",
		"the networks whose interfaces the policy isolates, and whose addresses count for its peers. Without it, the policy selects nothing " +
			"and has an [Event](reference-events.md)",
	},
	"k8s.v1.cni.cncf.io/networks": {
		"Pod", "whoever may create pods in the namespace",
		"the Network Selection Annotation: names separated by commas, or a list in JSON",
		"the agent [isolates the interfaces](architecture.md#the-first-instant-of-a-pod) that the pod requests before Multus reports them",
	},
	"k8s.v1.cni.cncf.io/network-status": {
		"Pod", "Multus. Whoever may update pods can write it too: the component `protect-network-status` " +
			"[prevents that](security.md#addresses-that-a-pod-claims)",
		"the Network Status Annotation: a list in JSON",
		"the interfaces that policies isolate, and the addresses with which the pod is a peer",
	},
	"k8s.v1.cni.cncf.io/networks-status": {
		"Pod", "old versions of Multus", "as `network-status`", "as `network-status`, which comes first",
	},
	"multi-networkpolicy/mode": {
		"MultiNetworkPolicy", "whoever may write policies in the namespace", "`enforce` or `audit`",
		"`audit`: the rules of the policy allow packets as always, and the policy isolates nothing; packets that it would drop are counted and reported: " +
			"[audit mode](drops.md#what-would-this-policy-drop). Without the annotation, the flag `--audit` decides",
	},
	"multi-networkpolicy/drop-log": {
		"Pod, Namespace", "whoever may update pods in the namespace, or the namespace", "`true` or `false`",
		"the agent of the node [reports the packets that it drops](drops.md#who-dropped-this-packet) on the interfaces of the pod, or of all pods " +
			"of the namespace. The annotation of the pod counts more",
	},
	"multi-networkpolicy/trace": {
		"Pod", "whoever may update pods in the namespace",
		"flags of `trace`, such as `--port 8080 --duration 2m`, at most 5 minutes and 50 packets a second",
		"the agent of the node [traces the packets of the pod](troubleshooting.md#real-packets) into its log: up to two pods of a namespace " +
			"and four of a node at the same time",
	},
	"kubernetes.io/config.mirror": {
		"Pod", "the kubelet", "the hash of a static pod, which is the UID under which the runtime knows it",
		"the agent finds the sandbox of the static pod",
	},
	"kubernetes.io/config.source": {
		"sandbox of a pod, in the container runtime", "the kubelet", "`api`, `file` or `http`",
		"a static pod (not `api`) does not [wait for its rules](architecture.md#the-first-instant-of-a-pod), since it may be the API server",
	},
	"k8s.io/initial-events-end": {
		"bookmark of a watch", "the API server", "`true`", "the list of the watch is complete. The agent also sets it on its own decoded record of the bookmark",
	},
}

// annotationUse is a place where the code reads or writes an annotation.
type annotationUse struct {
	key string
	at  ast.Node
}

// annotationsPage returns the page of annotations. An annotation that the code uses and the table lacks is an error, and so is an
// annotation in the table that no code uses.
func annotationsPage(s *source) (string, error) {
	uses, err := annotationUses(s)
	if err != nil {
		return "", err
	}
	files := map[string][]string{}
	for _, u := range uses {
		if _, ok := annotations[u.key]; !ok {
			return "", fmt.Errorf("%s: describe the annotation %s in hack/reference/annotations.go", s.place(u.at.Pos()), u.key)
		}
		if file := s.file(u.at.Pos()); !slices.Contains(files[u.key], file) {
			files[u.key] = append(files[u.key], file)
		}
	}
	var b strings.Builder
	b.WriteString(begin + `# Annotations

The agent reads these annotations. It writes none into the API server.

| annotation | object | written by | values | effect | read in |
| --- | --- | --- | --- | --- | --- |
`)
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		a := annotations[key]
		if files[key] == nil {
			return "", fmt.Errorf("hack/reference/annotations.go: no code uses the annotation %s", key)
		}
		var links []string
		for _, file := range slices.Sorted(slices.Values(files[key])) {
			links = append(links, fmt.Sprintf("[%s](../%s)", file, file))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", key, a.object, a.writer, a.values, a.effect, strings.Join(links, ", "))
	}
	return b.String(), nil
}

// annotationUses returns all places where the code takes an annotation from an object, or gives an object annotations. A key that is
// not constant is an error, since the page could not list it.
func annotationUses(s *source) (uses []annotationUse, err error) {
	add := func(p *packages.Package, key ast.Expr) {
		value, ok := text(p, key)
		switch {
		case !ok:
			err = cmp.Or(err, fmt.Errorf("%s: the name of an annotation is not a constant", s.place(key.Pos())))
		case strings.HasPrefix(value, "cobra_"): // of a command
		default:
			uses = append(uses, annotationUse{value, key})
		}
	}
	s.each(func(p *packages.Package, n ast.Node) {
		switch n := n.(type) {
		case *ast.IndexExpr: // object.Annotations[key], also as the target of an assignment
			if isAnnotations(n.X) {
				add(p, n.Index)
			}
		case *ast.RangeStmt:
			if isAnnotations(n.X) {
				err = cmp.Or(err, fmt.Errorf("%s: a loop over all annotations", s.place(n.Pos())))
			}
		case *ast.KeyValueExpr: // Annotations: map[string]string{key: value}
			name, isField := n.Key.(*ast.Ident)
			literal, isLiteral := n.Value.(*ast.CompositeLit)
			if isField && isLiteral && name.Name == "Annotations" {
				for _, e := range literal.Elts {
					add(p, e.(*ast.KeyValueExpr).Key)
				}
			}
		case *ast.AssignStmt: // object.Annotations = map[string]string{key: value}
			for i, target := range n.Lhs {
				if literal, ok := n.Rhs[min(i, len(n.Rhs)-1)].(*ast.CompositeLit); ok && isAnnotations(target) {
					for _, e := range literal.Elts {
						add(p, e.(*ast.KeyValueExpr).Key)
					}
				}
			}
		}
	})
	return uses, err
}

// isAnnotations reports whether an expression is the annotations of an object.
func isAnnotations(e ast.Expr) bool {
	if call, ok := e.(*ast.CallExpr); ok {
		f, ok := call.Fun.(*ast.SelectorExpr)
		return ok && f.Sel.Name == "GetAnnotations"
	}
	f, ok := e.(*ast.SelectorExpr)
	return ok && f.Sel.Name == "Annotations"
}
