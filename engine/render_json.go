package engine

import (
	"encoding/json"
	"io"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
)

// RenderJSON writes the tables as JSON, for programs: the texts of Render, taken apart. The table of family bridge, if
// it exists, is a field of the table of family inet. Without tables, RenderJSON writes null.
func RenderJSON(w io.Writer, tables Tables) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	// The texts have characters such as ">", which an escape would make hard to read.
	e.SetEscapeHTML(false)
	t := tableForJSON(Inet, tables[Inet])
	if t != nil {
		t.Bridge = tableForJSON(Bridge, tables[Bridge])
	}
	return e.Encode(t)
}

// tableForJSON returns nil for an empty Ruleset.
func tableForJSON(f expr.TableFamily, rs Ruleset) *tableJSON {
	if rs.IsEmpty() {
		return nil
	}
	t := &tableJSON{Family: f.String(), Name: TableName, Sets: []setJSON{}, Chains: []chainJSON{}}
	for _, s := range rs.Sets {
		j := setJSON{Name: s.Name, Type: typeText(s.Elements), Comment: s.Comment, Elements: elementTexts(s.Elements)}
		// The flags follow from the layout that the engine writes, so both outputs agree with the kernel.
		if layoutOf(s.Elements).flags&uapi.NFT_SET_INTERVAL != 0 {
			j.Flags = []string{"interval"}
		}
		if isServed(s.Elements) {
			j.Flags, j.Timeout = []string{"timeout"}, servedLifeText
		}
		t.Sets = append(t.Sets, j)
	}
	for _, c := range rs.Chains {
		j := chainJSON{Name: c.Name, Hook: c.Hook, Rules: []ruleJSON{}}
		for _, r := range c.Rules {
			j.Rules = append(j.Rules, ruleJSON{Rule: r.textIn(f), Comment: r.Comment})
		}
		t.Chains = append(t.Chains, j)
	}
	return t
}

// tableJSON, setJSON, chainJSON and ruleJSON are the JSON form of a table. Their texts are those of [Render].
type tableJSON struct {
	Family string      `json:"family"`
	Name   string      `json:"name"`
	Sets   []setJSON   `json:"sets"`
	Chains []chainJSON `json:"chains"`
	Bridge *tableJSON  `json:"bridgeTable,omitempty"`
}

type setJSON struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Flags    []string `json:"flags,omitempty"`   // as nft names them
	Timeout  string   `json:"timeout,omitempty"` // as nft prints it; empty: elements do not time out
	Comment  string   `json:"comment,omitempty"`
	Elements []string `json:"elements,omitempty"`
}

type chainJSON struct {
	Name  string     `json:"name"`
	Hook  Hook       `json:"hook,omitempty"` // empty: a chain without a hook
	Rules []ruleJSON `json:"rules"`
}

type ruleJSON struct {
	Rule    string `json:"rule"`
	Comment string `json:"comment,omitempty"`
}
