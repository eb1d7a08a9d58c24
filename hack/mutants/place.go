package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// A place is a piece of code with the piece that replaces it in the mutant.
// pkg, file and line are for the report; start and end are the bytes that broken replaces.
type place struct {
	pkg          *goPackage
	file         string // in the folder of the package
	line         int
	start, end   int // in the file, in bytes
	text, broken string
}

// opposites are operators that a mutant exchanges.
// A comparison is exchanged with a neighbor, such as < with <=, since a test of the boundary alone notices that.
var opposites = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
	token.LAND: token.LOR, token.LOR: token.LAND, token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.ADD,
	token.AND: token.OR, token.OR: token.AND, token.SHL: token.SHR, token.SHR: token.SHL,
}

// logging matches statements whose loss no test should notice.
var logging = regexp.MustCompile(`(?i)^[a-z.]*log(ger)?(\(.*\))?\.`)

// appendPlaces appends all places of the package, in the order of the sources.
// The files of a package are those of this platform, without tests.
func (p *goPackage) appendPlaces(places []place) ([]place, error) {
	for _, name := range p.GoFiles {
		source, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return nil, err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		add := func(from, to token.Pos, replace func(text string) string) {
			at, end := fset.Position(from), fset.Position(to).Offset
			text := string(source[at.Offset:end])
			if broken := replace(text); broken != text {
				places = append(places, place{p, name, at.Line, at.Offset, end, text, broken})
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			breakNode(n, add)
			return true
		})
	}
	return places, nil
}

// An adder adds a place. Replace returns the code for the mutant, or the same code if the place cannot be broken.
type adder func(from, to token.Pos, replace func(text string) string)

// breakNode adds the ways to break a node of the syntax tree.
// The ways are: another operator, a negated condition, another result, and a lost statement.
func breakNode(n ast.Node, add adder) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if other, ok := opposites[n.Op]; ok {
			add(n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), func(string) string { return other.String() })
		}
	case *ast.IfStmt:
		add(n.Cond.Pos(), n.Cond.End(), func(text string) string { return "!(" + text + ")" })
	case *ast.ReturnStmt:
		for _, result := range n.Results {
			add(result.Pos(), result.End(), otherValue)
		}
	case *ast.BlockStmt:
		dropEach(n.List, add)
	case *ast.CaseClause:
		dropEach(n.Body, add)
	case *ast.CommClause:
		dropEach(n.Body, add)
	}
}

// otherValue returns a value that differs from the returned value, or the value itself.
// Only numbers, booleans and err have another value that is likely to compile in their place.
func otherValue(text string) string {
	if n, err := strconv.Atoi(text); err == nil {
		return strconv.Itoa(n + 1)
	}
	if other, ok := map[string]string{"true": "false", "false": "true", "err": "nil"}[text]; ok {
		return other
	}
	return text
}

// drop returns an empty statement. A log line is kept.
func drop(text string) string {
	if logging.MatchString(text) {
		return text
	}
	return "{}"
}

// dropEach adds the loss of each statement that the rest of the function may compile without.
func dropEach(list []ast.Stmt, add adder) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.AssignStmt:
			// Without a definition, the rest would not compile.
			if s.Tok != token.DEFINE {
				add(s.Pos(), s.End(), drop)
			}
		case *ast.ExprStmt, *ast.IncDecStmt, *ast.SendStmt, *ast.DeferStmt, *ast.BranchStmt:
			add(s.Pos(), s.End(), drop)
		}
	}
}
