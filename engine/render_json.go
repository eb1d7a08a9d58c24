package engine

import (
	"encoding/json"
	"io"

	"golang.org/x/sys/unix"
)

// RenderJSON writes what Render does for programs: the same texts, taken apart. For an empty Ruleset it writes null.
func RenderJSON(w io.Writer, rs Ruleset) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if rs.IsEmpty() {
		return e.Encode(nil)
	}
	t := tableJSON{Family: "inet", Name: TableName, Sets: []setJSON{}, Chains: []chainJSON{}}
	for _, s := range rs.Sets {
		j := setJSON{Name: s.Name, Type: typeText(s.Elements), Comment: s.Comment, Elements: elementTexts(s.Elements)}
		if layoutOf(s.Elements).flags&unix.NFT_SET_INTERVAL != 0 {
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
			j.Rules = append(j.Rules, ruleJSON{Rule: r.Text(), Comment: r.Comment})
		}
		t.Chains = append(t.Chains, j)
	}
	return e.Encode(t)
}

type tableJSON struct {
	Family string      `json:"family"`
	Name   string      `json:"name"`
	Sets   []setJSON   `json:"sets"`
	Chains []chainJSON `json:"chains"`
}

type setJSON struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Flags    []string `json:"flags,omitempty"`
	Timeout  string   `json:"timeout,omitempty"`
	Comment  string   `json:"comment,omitempty"`
	Elements []string `json:"elements,omitempty"`
}

type chainJSON struct {
	Name  string     `json:"name"`
	Hook  Hook       `json:"hook,omitempty"`
	Rules []ruleJSON `json:"rules"`
}

type ruleJSON struct {
	Rule    string `json:"rule"`
	Comment string `json:"comment,omitempty"`
}
