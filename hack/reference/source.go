package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"

	"golang.org/x/tools/go/packages"
)

// module is the path of the agent's module.
const module = "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables"

// source has the typed syntax of the packages of the agent.
type source struct {
	root     string // absolute
	packages []*packages.Package
	files    *token.FileSet
}

// agentPackages are the patterns of all packages of the agent.
var agentPackages = []string{"./cache/...", "./engine/...", "./expr/...", "./informers/...", "./internal/...", "./sets/..."}

// load reads packages below root, without tests and without packages for tests. overlay has other contents of files, or further files,
// by their absolute paths.
func load(root string, overlay map[string][]byte, patterns ...string) (*source, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &source{root: root, files: token.NewFileSet()}
	config := &packages.Config{
		Dir: root, Fset: s.files, Overlay: overlay,
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo,
	}
	all, err := packages.Load(config, patterns...)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		for _, e := range p.Errors {
			return nil, fmt.Errorf("package %s: %w", p.PkgPath, e)
		}
		if name := strings.TrimPrefix(p.PkgPath, module+"/"); !strings.HasPrefix(name, "internal/test/") && name != "internal/demo" {
			s.packages = append(s.packages, p)
		}
	}
	return s, nil
}

// each calls a function for each node of the packages, with its package.
func (s *source) each(visit func(*packages.Package, ast.Node)) {
	for _, p := range s.packages {
		for _, file := range p.Syntax {
			ast.Inspect(file, func(n ast.Node) bool {
				visit(p, n)
				return true
			})
		}
	}
}

// file returns the path of the file of a position, below the root.
func (s *source) file(at token.Pos) string {
	path, err := filepath.Rel(s.root, s.files.Position(at).Filename)
	if err != nil {
		return s.files.Position(at).Filename
	}
	return filepath.ToSlash(path)
}

// place returns a position for a message.
func (s *source) place(at token.Pos) string {
	return fmt.Sprintf("%s:%d", s.file(at), s.files.Position(at).Line)
}

// text returns the value of a constant string. ok is false for all other expressions.
func text(p *packages.Package, e ast.Expr) (value string, ok bool) {
	v := p.TypesInfo.Types[e].Value
	if v == nil || v.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(v), true
}

// isNamed reports whether a type is the named type of a package of the agent, or a pointer to it.
func isNamed(t types.Type, pkg, name string) bool {
	if pointer, ok := t.(*types.Pointer); ok {
		t = pointer.Elem()
	}
	named, ok := t.(*types.Named)
	return ok && named.Obj().Name() == name && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == module+"/"+pkg
}
