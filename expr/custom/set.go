package custom

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func addrSet(f sets.Family, a sets.Addrs) Set {
	content := []string{f.String()}
	for r := range a.Ranges(f) {
		content = append(content, r.From.String()+"-"+r.To.String())
	}
	return Set{Name: setName(content), Family: f, Addrs: a}
}

func numberSet(d expr.Datatype, n sets.Numbers) Set {
	content := []string{d.String()}
	for r := range n.Ranges() {
		content = append(content, fmt.Sprintf("%d-%d", r.From, r.To))
	}
	return Set{Name: setName(content), Type: d, Numbers: n}
}

// setName names a set by its content, none of which has a space in it.
func setName(content []string) string {
	sum := sha256.Sum256([]byte(strings.Join(content, " ")))
	return "custom-" + hex.EncodeToString(sum[:8])
}
