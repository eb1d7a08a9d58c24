package bytecode_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestOther compares the file for other systems with google/nftables/expr: each constant has the same type and value, and each field of
// a struct has the same type.
func TestOther(t *testing.T) {
	list, err := packages.Load(&packages.Config{Mode: packages.NeedTypes}, "github.com/google/nftables/expr")
	if err != nil || len(list) != 1 || packages.PrintErrors(list) > 0 {
		t.Fatalf("%d packages, %v", len(list), err)
	}
	linux, other := parse(t, "bytecode_linux.go"), parse(t, "bytecode_other.go")
	checked, err := new(types.Config).Check("bytecode", other.set, []*ast.File{other.file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if names := checked.Scope().Names(); !slices.Equal(names, linux.names()) {
		t.Errorf("names of the two files:\n%v\n%v", linux.names(), names)
	}
	for _, name := range checked.Scope().Names() {
		own, theirs := checked.Scope().Lookup(name), list[0].Types.Scope().Lookup(name)
		if theirs == nil {
			t.Errorf("google/nftables/expr has no %s", name)
			continue
		}
		if typeText(own.Type()) != typeText(theirs.Type()) {
			t.Errorf("%s has the type %s, want %s", name, own.Type(), theirs.Type())
		}
		switch own := own.(type) {
		case *types.Const:
			if want := theirs.(*types.Const).Val(); !constant.Compare(own.Val(), token.EQL, want) {
				t.Errorf("%s is %s, want %s", name, own.Val(), want)
			}
		case *types.TypeName:
			compareTypes(t, name, own.Type().Underlying(), theirs.Type().Underlying())
		}
	}
}

// compareTypes compares a basic type, or the fields of a struct. The struct for other systems may lack fields.
func compareTypes(t *testing.T, name string, own, theirs types.Type) {
	if name == "Any" {
		return
	}
	fields, ok := own.(*types.Struct)
	if !ok {
		if !types.Identical(own, theirs) {
			t.Errorf("%s is a %s, want a %s", name, own, theirs)
		}
		return
	}
	want := map[string]string{}
	for f := range theirs.(*types.Struct).Fields() {
		want[f.Name()] = typeText(f.Type())
	}
	for f := range fields.Fields() {
		if got := typeText(f.Type()); got != want[f.Name()] {
			t.Errorf("field %s.%s has the type %s, want %q", name, f.Name(), got, want[f.Name()])
		}
	}
}

// typeText returns a type without its package.
func typeText(t types.Type) string {
	return types.TypeString(t, func(*types.Package) string { return "" })
}

// source is a parsed file.
type source struct {
	set  *token.FileSet
	file *ast.File
}

func parse(t *testing.T, name string) source {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return source{set, file}
}

// names returns the names that the file declares, sorted.
func (s source) names() []string {
	names := map[string]bool{}
	for _, d := range s.file.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				names[spec.Name.Name] = true
			case *ast.ValueSpec:
				for _, n := range spec.Names {
					names[n.Name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
