package labelindex_test

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
)

// Candidates of an index may match; their selectors decide.
func ExampleIndex() {
	selectors := map[string]*labelindex.Selector{}
	var index labelindex.Index[string]
	for name, labels := range map[string]map[string]string{
		"web": {"app": "web"}, "prod web": {"app": "web", "env": "prod"}, "database": {"app": "db"},
	} {
		s, err := labelindex.Compile(&metav1.LabelSelector{MatchLabels: labels})
		if err != nil {
			fmt.Println(err)
			return
		}
		selectors[name] = s
		index.Add(s, name)
	}
	pod := labelindex.NewSet(map[string]string{"app": "web", "env": "test"})
	for _, name := range index.AppendCandidates(nil, pod) {
		if s := selectors[name]; s.Matches(&pod) {
			fmt.Printf("%s: %s\n", name, s)
		}
	}
	// Output: web: app=web
}

// A selector without conditions matches every object, and a missing key matches NotIn.
func ExampleCompile() {
	pod := labelindex.NewSet(map[string]string{"app": "web"})
	for _, s := range []*metav1.LabelSelector{
		{},
		{MatchLabels: map[string]string{"app": "db"}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "env", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"test"}}}},
	} {
		selector, err := labelindex.Compile(s)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%q %t\n", selector.String(), selector.Matches(&pod))
	}
	// Output:
	// "" true
	// "app=db" false
	// "env!=test" true
}
