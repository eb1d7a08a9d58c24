package sets

import (
	"slices"
	"testing"
)

const tcp, udp, sctp = 6, 17, 132

func TestNewPorts(t *testing.T) {
	tests := []struct {
		name     string
		in, want []PortRange
	}{
		{"none", nil, nil},
		{"neighbours", []PortRange{{tcp, 81, 81}, {tcp, 80, 80}}, []PortRange{{tcp, 80, 81}}},
		{"overlap", []PortRange{{tcp, 80, 90}, {tcp, 85, 95}}, []PortRange{{tcp, 80, 95}}},
		{"within", []PortRange{{tcp, 80, 90}, {tcp, 85, 86}}, []PortRange{{tcp, 80, 90}}},
		{"never across protocols", []PortRange{{udp, 81, 81}, {tcp, 80, 80}}, []PortRange{{tcp, 80, 80}, {udp, 81, 81}}},
		{"nor from the last to the first", []PortRange{{16, 65535, 65535}, {udp, 0, 0}}, []PortRange{{16, 65535, 65535}, {udp, 0, 0}}},
		{"all", []PortRange{{tcp, 1, 65535}, {tcp, 0, 0}}, []PortRange{{tcp, 0, 65535}}},
		{"last twice", []PortRange{{tcp, 65535, 65535}, {tcp, 65535, 65535}}, []PortRange{{tcp, 65535, 65535}}},
		{"invalid", []PortRange{{tcp, 90, 80}, {tcp, 95, 95}}, []PortRange{{tcp, 95, 95}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := slices.Clone(tt.in)
			p := NewPorts(in...)
			wantDiff(t, "ranges", tt.want, slices.Collect(p.Ranges()))
			wantDiff(t, "argument, afterwards", tt.in, in)
			if p.Len() != len(tt.want) || p.IsEmpty() != (len(tt.want) == 0) {
				t.Errorf("Len is %d, IsEmpty %v", p.Len(), p.IsEmpty())
			}
		})
	}
}

func TestPortRangeString(t *testing.T) {
	for r, want := range map[PortRange]string{
		{tcp, 80, 80}: "80/tcp", {udp, 80, 90}: "80-90/udp", {sctp, 0, 65535}: "0-65535/sctp", {47, 1, 1}: "1/47",
	} {
		if got := r.String(); got != want {
			t.Errorf("%#v is printed as %s", r, got)
		}
	}
}

// portModel is the naive model of Ports: windows at the start, the middle and
// the end of the space of two neighbouring protocols, and the gaps between.
type portModel [2][3*portWindow + 2]bool

const portWindow = 16

// portCells returns the range of the cells from lo to hi of protocol 6+p.
func portCells(p, lo, hi int) PortRange {
	start := func(i int) int {
		switch {
		case i <= portWindow: // the gap starts where the next window cell would
			return i
		case i <= 2*portWindow+1:
			return 32768 - portWindow/2 + i - portWindow - 1
		}
		return 65536 - portWindow + i - 2*portWindow - 2
	}
	return PortRange{uint8(tcp + p), uint16(start(lo)), uint16(start(hi+1) - 1)}
}

func (m *portModel) ranges() []PortRange {
	var out []PortRange
	for p := range m {
		for i := 0; i < len(m[p]); i++ {
			lo := i
			for i < len(m[p]) && m[p][i] {
				i++
			}
			if i > lo {
				out = append(out, portCells(p, lo, i-1))
			}
		}
	}
	return out
}

// FuzzPorts reads its input as operations on a growing list of versions, and
// compares every version with the model.
func FuzzPorts(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 1, 1, 0, 2, 5, 3})
	f.Add([]byte{0, 0, 63, 2, 4, 9, 3, 49, 0, 0, 0, 0, 1, 0, 2, 2, 1, 1})
	type version struct {
		set  Ports
		want portModel
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		versions := []version{{}}
		for n := 0; len(data) >= 3 && n < maxOps; n++ {
			v := versions[len(versions)-1]
			other := versions[int(data[2])%len(versions)]
			p := int(data[0]>>2) & 1
			lo := int(data[1]) % len(v.want[p])
			hi := min(lo+int(data[2]), len(v.want[p])-1)
			arg, in := version{set: NewPorts(portCells(p, lo, hi))}, data[0]&1 == 0
			for i := lo; i <= hi; i++ {
				arg.want[p][i] = true
			}
			if data[0]&2 != 0 {
				arg = other
			}
			if in {
				v.set = v.set.Union(arg.set)
			} else {
				v.set = v.set.Difference(arg.set)
			}
			for p := range arg.want {
				for i, has := range arg.want[p] {
					v.want[p][i] = has && in || v.want[p][i] && !has
				}
			}
			if v.set.Equal(other.set) != (v.want == other.want) {
				t.Fatalf("Equal is %v", v.set.Equal(other.set))
			}
			wantDiff(t, "delta", naiveDelta(other.want.ranges(), v.want.ranges()), DiffPorts(other.set, v.set))
			versions = append(versions, v)
			data = data[3:]
		}
		for _, v := range versions {
			checkPorts(t, v.set, &v.want)
		}
	})
}

func checkPorts(t *testing.T, set Ports, m *portModel) {
	t.Helper()
	want := m.ranges()
	wantDiff(t, "ranges", want, slices.Collect(set.Ranges()))
	if set.Len() != len(want) || set.IsEmpty() != (len(want) == 0) {
		t.Fatalf("Len is %d, IsEmpty %v", set.Len(), set.IsEmpty())
	}
	for p := range m {
		for i, in := range m[p] {
			r := portCells(p, i, i)
			if set.Contains(r.Proto, r.From) != in || set.Contains(r.Proto, r.To) != in {
				t.Fatalf("Contains(%v) is not %v", r, in)
			}
		}
	}
	slices.Reverse(want)
	if !NewPorts(want...).Equal(set) {
		t.Fatal("the same ports in another order are not equal")
	}
}

func TestPortsOperations(t *testing.T) {
	p := NewPorts(PortRange{tcp, 80, 90}, PortRange{tcp, 443, 443}, PortRange{udp, 53, 53})
	q := NewPorts(PortRange{tcp, 10, 20}, PortRange{tcp, 85, 86}, PortRange{tcp, 90, 100}, PortRange{udp, 53, 60}, PortRange{sctp, 1, 9})
	wantDiff(t, "difference", []PortRange{{tcp, 80, 84}, {tcp, 87, 89}, {tcp, 443, 443}}, slices.Collect(p.Difference(q).Ranges()))
	wantDiff(t, "union", []PortRange{{tcp, 10, 20}, {tcp, 80, 100}, {tcp, 443, 443}, {udp, 53, 60}, {sctp, 1, 9}}, slices.Collect(p.Union(q).Ranges()))
}
