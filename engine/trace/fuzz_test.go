package trace

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// traceBody returns an event as the kernel writes it, without struct nlmsghdr.
func traceBody(kind uint32, chain string, handle uint64, verdict int32, packet bool) []byte {
	var w nfnl.Buffer
	w.Raw([]byte{unix.NFPROTO_INET, 0, 0, 0}) // struct nfgenmsg
	w.Uint32(unix.NFTA_TRACE_ID, 7)
	w.Uint32(unix.NFTA_TRACE_TYPE, kind)
	w.Text(unix.NFTA_TRACE_TABLE, engine.TableName)
	w.Text(unix.NFTA_TRACE_CHAIN, chain)
	if handle != 0 {
		w.Uint64(unix.NFTA_TRACE_RULE_HANDLE, handle)
	}
	if kind == unix.NFT_TRACETYPE_POLICY {
		w.Uint32(unix.NFTA_TRACE_POLICY, uint32(verdict))
	} else {
		v := w.Nest(unix.NFTA_TRACE_VERDICT)
		w.Uint32(unix.NFTA_VERDICT_CODE, uint32(verdict))
		if verdict == unix.NFT_JUMP {
			w.Text(unix.NFTA_VERDICT_CHAIN, "there")
		}
		w.EndNest(v)
	}
	if packet {
		header := make([]byte, 40)
		header[0], header[6] = 0x60, unix.IPPROTO_TCP
		w.Data(unix.NFTA_TRACE_NETWORK_HEADER, header)
		w.Data(unix.NFTA_TRACE_TRANSPORT_HEADER, []byte{0x10, 1, 0, 80})
		w.Uint32(unix.NFTA_TRACE_IIF, 2)
	}
	return w.Bytes()
}

func TestParseTraceEvent(t *testing.T) {
	jump, err := parseEvent(traceBody(unix.NFT_TRACETYPE_RULE, "prerouting", 9, unix.NFT_JUMP, true))
	if err != nil {
		t.Fatal(err)
	}
	if s := jump.step(); s.Verdict != "jump" || s.Target != "there" || s.Handle != 9 || !s.IsOfAgent() || jump.in != 2 {
		t.Errorf("jump: %+v", jump)
	}
	if p := jump.packet; p.Source.String() != "::" || p.SourcePort != 4097 || p.DestinationPort != 80 {
		t.Errorf("packet: %+v", p)
	}
	policy, err := parseEvent(traceBody(unix.NFT_TRACETYPE_POLICY, "prerouting", 0, nfAccept, false))
	if s := policy.step(); err != nil || s.Verdict != "accept" || !s.IsPolicy || policy.isEnd() {
		t.Errorf("policy: %+v %v", policy, err)
	}
	end, err := parseEvent(traceBody(unix.NFT_TRACETYPE_RETURN, "there", 0, unix.NFT_CONTINUE, false))
	if err != nil || !end.isEnd() {
		t.Errorf("end: %+v %v", end, err)
	}
	// NF_DROP_ERR has an errno in its upper half.
	if got := verdictText(int32(unix.EPERM) << 16); got != "drop" {
		t.Errorf("drop with an errno is %q", got)
	}
}

// FuzzTraceEvent: no input may panic, and the texts of a step are parts of the input.
func FuzzTraceEvent(f *testing.F) {
	f.Add(traceBody(unix.NFT_TRACETYPE_RULE, "prerouting", 9, unix.NFT_JUMP, true))
	f.Add(traceBody(unix.NFT_TRACETYPE_POLICY, "prerouting", 0, nfAccept, false))
	f.Add(traceBody(unix.NFT_TRACETYPE_RETURN, "there", 0, unix.NFT_CONTINUE, false))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parseEvent(body)
		if err != nil {
			return
		}
		if s := e.step(); len(s.Table)+len(s.Chain)+len(s.Target) > len(body) || s.Verdict == "" {
			t.Errorf("%+v", s)
		}
		if p := e.packet; p.HasPorts && !p.Source.IsValid() {
			t.Errorf("%+v", p)
		}
	})
}

// FuzzTraceRule: no bytecode may panic. Root in the pod can add rules that this version does not know.
func FuzzTraceRule(f *testing.F) {
	f.Add(binary.BigEndian.AppendUint32(nil, 1))
	f.Fuzz(func(_ *testing.T, payload []byte) {
		commonTexts.of(payload)
		setsOf(payload)
	})
}

// TestAssembler: the events of several packets do not mix, and an ID that comes again is another packet.
func TestAssembler(t *testing.T) {
	var s assembler
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	s.begin(1, Packet{Time: at(0), In: "a"})
	s.begin(2, Packet{Time: at(1), In: "b"})
	s.add(1, Step{Chain: "first"}, at(2))
	s.begin(1, Packet{Time: at(3), In: "c"})
	s.add(1, Step{Chain: "second"}, at(4))
	s.add(3, Step{Chain: "of nobody"}, at(5))
	if _, ok := s.settled(at(1)); ok {
		t.Error("settled too early")
	}
	var got string
	for {
		p, ok := s.settled(at(5))
		if !ok {
			break
		}
		got += p.In
		for _, step := range p.Steps {
			got += " " + step.Chain
		}
		got += ";"
	}
	if want := "a first;b;c second;"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(s.open) != 0 {
		t.Errorf("%d packets are kept", len(s.open))
	}
}
