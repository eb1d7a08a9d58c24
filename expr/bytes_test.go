package expr_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

var update = flag.Bool("update", false, "write the golden file anew")

// vocabulary returns every statement of the package once, in each of its forms.
func vocabulary() []expr.Statement {
	v := []expr.Statement{
		expr.IIFName("net1"),
		expr.OIFName("net1"),
		expr.IIFName("a23456789012345"),
		expr.PortIn("ports"),
		expr.SourcePortIn("ports"),
		expr.DialedPortIn(expr.UDP, "ports"),
		expr.Established(),
		expr.ICMP(sets.V4),
		expr.ICMP(sets.V6),
		expr.Counter(),
		expr.Accept(),
		expr.Drop(),
		expr.Jump("other"),
		expr.Goto("other"),
	}
	for _, f := range sets.Families {
		v = append(v,
			expr.SourceIn(f, "peers-"+f.String()),
			expr.DestinationIn(f, "peers-"+f.String()),
			expr.DestinationEndpointIn(f, "endpoints-"+f.String()),
			expr.SourceEndpointIn(f, "endpoints-"+f.String()))
	}
	for _, matches := range expr.LinkControl() {
		v = append(v, matches...)
	}
	v = append(v, expr.OwnCopy(sets.V4)...)
	v = append(v, expr.OwnCopy(sets.V6)[1:]...) // its first statement is the same for both families
	v = append(v, expr.ReplyOfEstablished()...)
	return append(v, customVocabulary()...)
}

// TestBytes compares the bytecode of each statement with testdata/bytecode.txt. The file has the name and the data of each
// expression under the nft line that it belongs to, as a little-endian machine encodes them. TestSameAsNFT compares the same statements
// with stock nft.
func TestBytes(t *testing.T) {
	var got bytes.Buffer
	for _, s := range vocabulary() {
		fmt.Fprintln(&got, s.Text)
		b, err := expr.Marshal(expr.Inet, []expr.Statement{s})
		if err != nil {
			t.Fatal(err)
		}
		// The kernel loads these two in the byte order of the machine, until a byteorder expression swaps them.
		hostOrder := strings.HasPrefix(s.Text, "meta mark") || strings.HasPrefix(s.Text, "ct state")
		for _, e := range attributes(t, b) {
			parts := attributes(t, e.Data)
			if len(parts) != 2 || parts[0].Type != unix.NFTA_EXPR_NAME {
				t.Fatalf("%s: not an expression: %x", s.Text, e.Data)
			}
			name := strings.TrimRight(string(parts[0].Data), "\x00")
			if name == "byteorder" {
				hostOrder = false
			}
			data := littleEndian(t, parts[1].Data, hostOrder, false)
			fmt.Fprintf(&got, "  %-9s %s\n", name, hex.EncodeToString(data))
		}
	}
	const golden = "testdata/bytecode.txt"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("bytecode (-want +got):\n%s", diff)
	}
}

// littleEndian returns the data of an expression as a little-endian machine encodes it, like the golden file. Netlink writes the
// headers of attributes in the byte order of the machine. hostOrder says whether the values that the expression compares are in this
// order too; all other numbers are big-endian. nested is true for the attributes of a value.
func littleEndian(t *testing.T, b []byte, hostOrder, nested bool) (out []byte) {
	t.Helper()
	for len(b) > 0 {
		length, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		content := slices.Clone(b[unix.SizeofNlAttr:length])
		switch {
		case typ&unix.NLA_F_NESTED != 0:
			content = littleEndian(t, content, hostOrder, true)
		case nested && hostOrder && typ == unix.NFTA_DATA_VALUE:
			binary.LittleEndian.PutUint32(content, binary.NativeEndian.Uint32(content))
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(length))
		out = binary.LittleEndian.AppendUint16(out, typ)
		out = append(out, content...)
		padded := (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
		out = append(out, make([]byte, padded-length)...)
		b = b[padded:]
	}
	return out
}

func attributes(t *testing.T, b []byte) []netlink.Attribute {
	t.Helper()
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		list[i].Type &^= unix.NLA_F_NESTED
	}
	return list
}

// TestInterfaceNameIsWhole shows that "net1" is compared with its NUL, so that it does not match "net10".
func TestInterfaceNameIsWhole(t *testing.T) {
	b, err := expr.Marshal(expr.Inet, []expr.Statement{expr.IIFName("net1")})
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte("net1"), make([]byte, unix.IFNAMSIZ-4)...); !bytes.Contains(b, want) {
		t.Errorf("%x does not contain the padded name %x", b, want)
	}
}

// TestUnequalTexts checks an assumption of the engine's plan: two statements have the same text if and only if they have the
// same bytecode.
func TestUnequalTexts(t *testing.T) {
	texts := map[string]string{}
	for _, s := range vocabulary() {
		b, err := expr.Marshal(expr.Inet, []expr.Statement{s})
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := texts[string(b)]; ok && other != s.Text {
			t.Errorf("%q and %q are the same bytecode", other, s.Text)
		}
		texts[string(b)] = s.Text
	}
	if len(texts) != len(vocabulary()) {
		t.Errorf("%d statements have %d different bytecodes", len(vocabulary()), len(texts))
	}
}
