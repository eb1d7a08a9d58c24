package uapi_test

import (
	"go/constant"
	"go/token"
	"go/types"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestValues compares every constant with the constant of the same name in golang.org/x/sys/unix.
func TestValues(t *testing.T) {
	list, err := packages.Load(&packages.Config{Mode: packages.NeedName | packages.NeedTypes}, ".", "golang.org/x/sys/unix")
	if err != nil || len(list) != 2 || packages.PrintErrors(list) > 0 {
		t.Fatalf("%d packages, %v", len(list), err)
	}
	scopes := map[string]*types.Scope{}
	for _, p := range list {
		scopes[p.Name] = p.Types.Scope()
	}
	names := scopes["uapi"].Names()
	for _, name := range names {
		own, ok := scopes["uapi"].Lookup(name).(*types.Const)
		if !ok {
			t.Errorf("%s is no constant", name)
			continue
		}
		theirs, ok := scopes["unix"].Lookup(name).(*types.Const)
		if !ok {
			t.Errorf("golang.org/x/sys/unix has no constant %s", name)
			continue
		}
		if !constant.Compare(own.Val(), token.EQL, theirs.Val()) {
			t.Errorf("%s is %s, want %s", name, own.Val(), theirs.Val())
		}
		if own.Type() != types.Typ[types.UntypedInt] {
			t.Errorf("%s has the type %s, want an untyped integer as in golang.org/x/sys/unix", name, own.Type())
		}
	}
	if len(names) < 25 {
		t.Errorf("only %d constants were compared", len(names))
	}
}
