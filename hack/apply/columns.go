package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// columnCases are policies, with the cells that kubectl get shows for them, apart from the age.
var columnCases = []struct{ policy, cells string }{
	{
		`{"metadata": {"name": "a", "annotations": {"k8s.v1.cni.cncf.io/policy-for": "macvlan, other/net"}},
		  "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]}}`,
		`a | {"matchLabels":{"app":"web"}} | ["Ingress","Egress"] | macvlan, other/net`,
	},
	{
		`{"metadata": {"name": "b", "annotations": {"k8s.v1.cni.cncf.io/policy-for": "macvlan"}}, "spec": {"podSelector": {}}}`,
		`b | {} | <nil> | macvlan`,
	},
	{
		`{"metadata": {"name": "c"}, "spec": {"podSelector":
		  {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["db", "cache"]}]}, "policyTypes": ["Ingress"]}}`,
		`c | {"matchExpressions":[{"key":"tier","operator":"In","values":["db","cache"]}]} | ["Ingress"] | <nil>`,
	},
}

// checkColumns stores the CRD and policies, and compares the table that the API server makes for kubectl get.
func checkColumns(ctx context.Context, a *applier, config *rest.Config, manifests string) error {
	text, err := os.ReadFile(filepath.Join(manifests, "base/crd.yaml"))
	if err != nil {
		return err
	}
	var crd map[string]any
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return err
	}
	if err := a.apply(ctx, crd, false); err != nil {
		return err
	}
	if err := a.waitServed(ctx, crd); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	path, want := apiserver.PoliciesPath("default"), []string(nil)
	for _, c := range columnCases {
		body := `{"apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy", ` + c.policy[1:]
		err := await.NoError(ctx, "a policy is stored", func() error { return apiserver.Post(ctx, client, path, []byte(body)) })
		if err != nil {
			return err
		}
		want = append(want, c.cells)
	}
	answer, err := client.Discovery().RESTClient().Get().AbsPath(path).
		SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if err != nil {
		return err
	}
	var table struct {
		ColumnDefinitions []struct{ Name string }
		Rows              []struct{ Cells []any }
	}
	if err := yaml.Unmarshal(answer, &table); err != nil {
		return err
	}
	var names, got []string
	for _, c := range table.ColumnDefinitions {
		names = append(names, c.Name)
	}
	for _, row := range table.Rows {
		var cells []string
		for _, cell := range row.Cells[:len(row.Cells)-1] {
			cells = append(cells, fmt.Sprint(cell))
		}
		got = append(got, strings.Join(cells, " | "))
	}
	if !slices.Equal(names, []string{"Name", "Pod-Selector", "Types", "Networks", "Age"}) || !slices.Equal(got, want) {
		return fmt.Errorf("kubectl get shows the columns %q and\n%s\nwant\n%s", names, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return nil
}
