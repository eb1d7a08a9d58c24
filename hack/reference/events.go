package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// reasonFile has the constants of all reasons, with their comments.
const reasonFile = "cache/policy/reason.go"

// reason is a reason of Events.
type reason struct{ name, object, meaning, message string }

// reasonComment is the form of the comment of a reason, see reasonFile.
var reasonComment = regexp.MustCompile(`(?s)^(\w+) is about a (\w+): (.*)\n\nMessage: (.*)\n$`)

// eventsPage returns the page of Events. A reason that the code uses and reasonFile lacks is an error, and so is a reason that no code
// uses.
func eventsPage(s *source) (string, error) {
	reasons, err := declaredReasons(s)
	if err != nil {
		return "", err
	}
	if err := checkReasons(s, reasons); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(begin + `# Events

The agent creates Events in the namespace of their object. All of them have the type Warning and the source
` + "`multi-networkpolicy-nftables`" + `. Agents of several nodes that find the same problem create a single Event. Each object and each namespace
has a budget of Events; the [metric](metrics.md#metrics) ` + "`multi_networkpolicy_suppressed_total`" + ` counts those beyond it.
` + "`kubectl get events -A --field-selector reason=REASON`" + ` lists the Events with a reason. In messages, words in capitals stand for variable parts.

| reason | object | meaning | message |
| --- | --- | --- | --- |
`)
	for _, r := range reasons {
		fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` |\n", r.name, r.object, cell(r.meaning), cell(r.message))
	}
	b.WriteString(`
## Problems in messages

FIELD is the path of a field, such as ` + "`spec.ingress[0].from[1].ipBlock.cidr`" + `. Of an object with many problems the first are listed, and the
last message has the number of the others. These are the problems in the code; … stands for a variable part:

| problem | found by |
| --- | --- |
`)
	for _, p := range problems(s) {
		fmt.Fprintf(&b, "| %s | [%s](../%s) |\n", strings.ReplaceAll(cell(p.text), "*", `\*`), p.file, p.file)
	}
	return b.String(), nil
}

// declaredReasons returns the constants in reasonFile, in their order.
func declaredReasons(s *source) (reasons []reason, err error) {
	s.each(func(_ *packages.Package, n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || err != nil || s.file(n.Pos()) != reasonFile {
			return
		}
		m := reasonComment.FindStringSubmatch(spec.Doc.Text())
		if m == nil || m[1] != spec.Names[0].Name {
			err = fmt.Errorf("%s: the comment of %s does not have the form of the others", s.place(n.Pos()), spec.Names[0].Name)
			return
		}
		meaning := strings.TrimSpace(m[3])
		reasons = append(reasons, reason{m[1], m[2], strings.ToUpper(meaning[:1]) + meaning[1:], m[4]})
	})
	if err == nil && len(reasons) == 0 {
		err = fmt.Errorf("%s has no reasons", reasonFile)
	}
	return reasons, err
}

// checkReasons compares the reasons with the uses of the type policy.Reason in the code.
func checkReasons(s *source, reasons []reason) (err error) {
	fail := func(n ast.Node, format string, args ...any) {
		err = cmp.Or(err, fmt.Errorf("%s: %s", s.place(n.Pos()), fmt.Sprintf(format, args...)))
	}
	known, used := map[string]bool{}, map[string]bool{}
	for _, r := range reasons {
		known[r.name] = true
	}
	s.each(func(p *packages.Package, n ast.Node) {
		e, ok := n.(ast.Expr)
		if !ok || s.file(n.Pos()) == reasonFile {
			return
		}
		typed := p.TypesInfo.Types[e]
		if typed.IsType() || typed.Type == nil || !isNamed(typed.Type, "cache/policy", "Reason") {
			return
		}
		if value, ok := text(p, e); ok {
			used[value] = true
			if !known[value] {
				fail(n, "%s lacks the reason %q", reasonFile, value)
			}
			return
		}
		// A conversion of a text that is not constant could make any reason.
		if call, ok := e.(*ast.CallExpr); ok && p.TypesInfo.Types[call.Fun].IsType() {
			fail(n, "a reason is not a constant")
		}
	})
	literals := s.literals()
	for _, r := range reasons {
		if !used[r.name] {
			return cmp.Or(err, fmt.Errorf("%s: no code uses the reason %s", reasonFile, r.name))
		}
		for _, part := range fixedParts(r.message) {
			if !strings.Contains(literals, part) {
				return cmp.Or(err, fmt.Errorf("%s: no message of the code has %q of the reason %s", reasonFile, part, r.name))
			}
		}
	}
	return err
}

// literals returns all constant strings of the packages.
func (s *source) literals() string {
	var b strings.Builder
	s.each(func(p *packages.Package, n ast.Node) {
		if e, ok := n.(ast.Expr); ok {
			if value, ok := text(p, e); ok {
				b.WriteString(value + "\n")
			}
		}
	})
	return b.String()
}

// variable matches a variable part of a message, or a colon, where the code may join two texts.
var variable = regexp.MustCompile(`\b[A-Z]{2,}\b|: `)

// fixedParts returns the parts of a message between its variable parts. Short parts are left out: they are in many messages.
func fixedParts(message string) (parts []string) {
	for _, part := range variable.Split(message, -1) {
		if part = strings.TrimSpace(part); len(part) > 7 {
			parts = append(parts, part)
		}
	}
	return parts
}

// problem is the message of a policy.Problem, with … for its variable parts.
type problem struct{ text, file string }

// verb matches a verb of fmt.
var verb = regexp.MustCompile(`%[+#]?[a-z]`)

// problems returns the messages of all problems that the code reports with a constant text or format, sorted by file and text.
func problems(s *source) (list []problem) {
	add := func(n ast.Node, format string) {
		text := strings.TrimSpace(verb.ReplaceAllString(format, "…"))
		if p := (problem{text, s.file(n.Pos())}); text != "…" && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	s.each(func(p *packages.Package, n ast.Node) {
		switch n := n.(type) {
		case *ast.CallExpr: // problems.Add(field, format, …)
			f, ok := n.Fun.(*ast.SelectorExpr)
			if ok && f.Sel.Name == "Add" && len(n.Args) >= 2 && isNamed(p.TypesInfo.TypeOf(f.X), "cache/policy", "Problems") {
				if format, ok := text(p, n.Args[1]); ok {
					add(n, format)
				}
			}
		case *ast.CompositeLit: // Problem{Field: …, Message: …}
			if !isNamed(p.TypesInfo.TypeOf(n), "cache/policy", "Problem") {
				return
			}
			for _, e := range n.Elts {
				if field, ok := e.(*ast.KeyValueExpr); ok && field.Key.(*ast.Ident).Name == "Message" {
					if format, ok := formatOf(p, field.Value); ok {
						add(n, format)
					}
				}
			}
		}
	})
	slices.SortFunc(list, func(a, b problem) int {
		return cmp.Or(strings.Compare(a.file, b.file), strings.Compare(a.text, b.text))
	})
	return list
}

// formatOf returns a constant text, or the constant format of a call such as fmt.Sprintf.
func formatOf(p *packages.Package, e ast.Expr) (string, bool) {
	if call, ok := e.(*ast.CallExpr); ok && len(call.Args) > 0 {
		e = call.Args[0]
	}
	return text(p, e)
}
