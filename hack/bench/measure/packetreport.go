package main

import (
	"fmt"
	"io"
)

// print has one line for each number of policies and peers, and one column a style.
func (r *packetReport) print(w io.Writer) error {
	fmt.Fprintf(w, "Linux %s, %s, %d cores, load %s before and %s after\n\n",
		r.Machine.Kernel, r.Machine.Go, r.Machine.Cores, r.Machine.LoadBefore, r.Machine.LoadAfter)
	fmt.Fprint(w, "One packet that the last policy lets pass: ns of CPU time (more than without rules); thousand packets a second on one core\n\n")
	lines := [][]string{{"policies", "peers each", "flow"}}
	for _, s := range ruleStyles {
		lines[0] = append(lines[0], s.name)
	}
	none := packetRow{}
	for _, x := range r.Rows {
		if x.Rules == ruleStyles[0].name {
			none = x
			lines = append(lines, make([]string, len(lines[0])))
			copy(lines[len(lines)-1], []string{fmt.Sprint(x.Policies), fmt.Sprint(x.Peers), x.Flow})
		}
		for i, s := range ruleStyles {
			if s.name == x.Rules {
				lines[len(lines)-1][3+i] = fmt.Sprintf("%d (+%d); %d", x.CPU.Nanoseconds(), (x.CPU - none.CPU).Nanoseconds(), x.Rate/1000)
			}
		}
	}
	return printTable(w, lines)
}
