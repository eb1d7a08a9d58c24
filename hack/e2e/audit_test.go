package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestRequests(t *testing.T) {
	const log = `
{"verb":"list","requestURI":"/api/v1/pods?limit=500","user":{"username":"ACCOUNT"},"objectRef":{"resource":"pods","apiVersion":"v1"},"responseStatus":{"code":200},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"watch","requestURI":"/apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies?watch=true","user":{"username":"ACCOUNT"},"objectRef":{"resource":"multi-networkpolicies","apiGroup":"k8s.cni.cncf.io","apiVersion":"v1beta1"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"create","requestURI":"/api/v1/namespaces/gone/events","user":{"username":"ACCOUNT"},"objectRef":{"resource":"events","namespace":"gone"},"responseStatus":{"code":403},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"get","requestURI":"/version","user":{"username":"ACCOUNT"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"delete","requestURI":"/api/v1/namespaces/default/pods/x","user":{"username":"system:serviceaccount:default:default"},"objectRef":{"resource":"pods"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"patch","requestURI":"/api/v1/nodes/node1/status","user":{"username":"ACCOUNT"},"objectRef":{"resource":"nodes","subresource":"status"},"annotations":{"authorization.k8s.io/decision":"forbid"}}
{"verb":"list","requestURI":"/api/v1/na`
	used, refused, err := requests(strings.NewReader(strings.ReplaceAll(log, "ACCOUNT", agentAccount)))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"create events", "list pods", "watch multi-networkpolicies.k8s.cni.cncf.io"}
	if got := slices.Sorted(maps.Keys(used)); !slices.Equal(got, want) {
		t.Errorf("used %q, want %q", got, want)
	}
	if len(refused) != 1 || refused[0].Error() != "patch /api/v1/nodes/node1/status" {
		t.Errorf("refused %v", refused)
	}
}
