package policy

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
)

// compileSelector compiles a label selector. A null or absent selector matches everything. It returns false for a selector that
// is invalid or exceeds a limit, and adds a Problem with the consequence.
// field is the path of the selector in the Problem.
func compileSelector(raw json.RawMessage, field, consequence string, u *usage, ps *Problems) (*labelindex.Selector, bool) {
	var s metav1.LabelSelector
	if !isNull(raw) {
		if err := decode(raw, &s); err != nil {
			ps.Add(field, "cannot be decoded, so %s: %s", consequence, clip(Words(err)))
			return nil, false
		}
	}
	labels := len(s.MatchLabels)
	for _, e := range s.MatchExpressions {
		labels += len(e.Values)
	}
	if !u.take(&u.expressions, len(s.MatchExpressions), "policy-expressions", u.limits.PolicyExpressions, field, consequence, ps) ||
		!u.take(&u.labels, labels, "policy-labels", u.limits.PolicyLabels, field, consequence, ps) {
		return nil, false
	}
	compiled, err := labelindex.Compile(&s)
	if err != nil {
		ps.Add(field, "is invalid, so %s: %s", consequence, clip(Words(err)))
		return nil, false
	}
	return compiled, true
}
