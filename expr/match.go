package expr

import (
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// IIFName is `iifname "NAME"`: the packet came in on the interface. Names longer than 15 bytes match nothing. The match
// goes by name and not by index (`iif`), so it also holds for an interface that is made later.
func IIFName(name string) Statement {
	return interfaceField("iifname", bytecode.MetaKeyIIFNAME).named(Is, name)
}

// OIFName is `oifname "NAME"`: the packet goes out on the interface.
func OIFName(name string) Statement {
	return interfaceField("oifname", bytecode.MetaKeyOIFNAME).named(Is, name)
}

// InputInterface is IIFName with an operator and a pattern: a star at the end of the pattern matches any rest of a name.
func InputInterface(op Op, pattern string) Statement {
	return interfaceField("iifname", bytecode.MetaKeyIIFNAME).matching(op, pattern)
}

// OutputInterface is OIFName with an operator and a pattern, as in InputInterface.
func OutputInterface(op Op, pattern string) Statement {
	return interfaceField("oifname", bytecode.MetaKeyOIFNAME).matching(op, pattern)
}

// interfaceField returns the field of an interface's name. It is IFNAMSIZ bytes long, as the kernel loads it.
func interfaceField(word string, key bytecode.MetaKey) field {
	return field{words: word, load: []bytecode.Any{&bytecode.Meta{Key: key, Register: reg}}, size: uapi.IFNAMSIZ}
}

// matching compares the field with a pattern. For a prefix, it compares only the bytes of the prefix, as nft does for
// `iifname "net1.*"`.
func (f field) matching(op Op, pattern string) Statement {
	start, isPrefix := strings.CutSuffix(pattern, "*")
	if !isPrefix {
		return f.named(op, pattern)
	}
	return f.equal(op, `"`+pattern+`"`, []byte(start))
}

// named compares all 16 bytes of a name, including the NULs at its end, so that "net1" does not match "net10".
func (f field) named(op Op, name string) Statement {
	return f.equal(op, `"`+name+`"`, paddedName(name))
}

// paddedName returns the name of an interface as the kernel loads it: IFNAMSIZ bytes, padded with NULs.
func paddedName(name string) []byte {
	padded := make([]byte, uapi.IFNAMSIZ)
	copy(padded, name)
	return padded
}

// family holds the differences between the IPv4 header (RFC 791 section 3.1) and the IPv6 header (RFC 8200 section 3).
type family struct {
	word           string
	nfproto        byte
	etherType      uint16
	source, dest   uint32 // offsets in the network header, bytes
	addrLen, slots int    // bytes, and 4-byte registers
}

// familyOf returns the layout of a family's header. Any family but V4 counts as V6.
func familyOf(f sets.Family) family {
	if f == sets.V4 {
		return family{word: "ip", nfproto: uapi.NFPROTO_IPV4, etherType: uapi.ETH_P_IP, source: 12, dest: 16, addrLen: 4, slots: 1}
	}
	return family{word: "ip6", nfproto: uapi.NFPROTO_IPV6, etherType: uapi.ETH_P_IPV6, source: 8, dest: 24, addrLen: 16, slots: 4}
}

// isFamily checks the family of the packet, since an inet table sees both: bytes 12 to 15 are the source address in an
// IPv4 header, and a part of the source address in an IPv6 header. Without this check, nft would print the following
// payload as raw `@nh,96,32`.
func (f family) isFamily() []bytecode.Any {
	return []bytecode.Any{
		&bytecode.Meta{Key: bytecode.MetaKeyNFPROTO, Register: reg},
		&bytecode.Cmp{Op: bytecode.CmpOpEq, Register: reg, Data: []byte{f.nfproto}},
	}
}

// load loads an address of the network header into reg.
func (f family) load(offset uint32) bytecode.Any {
	return &bytecode.Payload{DestRegister: reg, Base: bytecode.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(f.addrLen)}
}

// SourceIn is `ip saddr @SET` or `ip6 saddr @SET`; packets of the other family do not match.
func SourceIn(f sets.Family, set string) Statement { return Source(f).In(Is, set) }

// DestinationIn is `ip daddr @SET` or `ip6 daddr @SET`; packets of the other family do not match.
func DestinationIn(f sets.Family, set string) Statement { return Destination(f).In(Is, set) }

// IsFamily is `meta nfproto ipv4` or `meta nfproto ipv6`: all packets of the family.
func IsFamily(f sets.Family) Statement {
	if f == sets.V4 {
		return Statement{Text: "meta nfproto ipv4", Exprs: familyOf(f).isFamily()}
	}
	return Statement{Text: "meta nfproto ipv6", Exprs: familyOf(f).isFamily()}
}

// PortIn is `th dport . meta l4proto @SET`. The port comes first, since the kernel narrows its search in a concatenation with
// ranges by the first field, and all elements may have the same protocol. TCP, UDP and SCTP have the destination port in
// bytes 2 and 3 of their header (RFC 9293, 768, 9260). A packet without these bytes does not match.
func PortIn(set string) Statement { return portIn("dport", destinationPort, set) }

// SourcePortIn is PortIn for the source port, in bytes 0 and 1 of the header.
func SourcePortIn(set string) Statement { return portIn("sport", sourcePort, set) }

// DialedPortIn is `meta l4proto PROTOCOL ct original proto-dst . meta l4proto @SET`. It is PortIn for the port that the client
// of the packet's connection dialed, before any address translation.
func DialedPortIn(t Transport, set string) Statement {
	s := protocolPortIn("ct original proto-dst", loadDialedPort(slot(0)), set)
	protocol := L4Protocol().Range(Is, sets.NumberRange{From: uint32(t), To: uint32(t)})
	return Statement{Text: protocol.Text + " " + s.Text, Exprs: append(protocol.Exprs, s.Exprs...)}
}

// portIn loads the port into slot 0 and the protocol into slot 1, side by side:
//
//	NFT_REG32_00    NFT_REG32_01
//	│ port │ 0 0 │  │ proto │ 0 0 0 │     key of `inet_service . inet_proto`
//
// Each field of a concatenation takes whole 4-byte registers, so the key has 8 bytes.
func portIn(word string, offset uint32, set string) Statement {
	return protocolPortIn("th "+word, loadTransport(slot(0), offset, 2), set)
}

// protocolPortIn is portIn with any expression that loads a port into slot 0.
func protocolPortIn(words string, load bytecode.Any, set string) Statement {
	return Statement{
		Text: words + " . meta l4proto @" + set,
		Exprs: []bytecode.Any{
			load,
			&bytecode.Meta{Key: bytecode.MetaKeyL4PROTO, Register: slot(1)},
			&bytecode.Lookup{SourceRegister: reg, SetName: set},
		},
	}
}

// DestinationEndpointIn is `ip daddr . meta l4proto . th dport @SET`, or the same with ip6: the packet goes to a pod
// and to the number that the named port has in this pod.
func DestinationEndpointIn(f sets.Family, set string) Statement {
	fam := familyOf(f)
	return fam.endpointIn(" daddr . meta l4proto . th dport @", fam.dest, destinationPort, set)
}

// SourceEndpointIn is DestinationEndpointIn for the source address and the source port.
func SourceEndpointIn(f sets.Family, set string) Statement {
	fam := familyOf(f)
	return fam.endpointIn(" saddr . meta l4proto . th sport @", fam.source, sourcePort, set)
}

// endpointIn loads address, protocol and port into adjacent slots, as the lookup of a concatenation requires.
func (f family) endpointIn(words string, addr, port uint32, set string) Statement {
	return Statement{
		Text: f.word + words + set,
		Exprs: append(f.isFamily(),
			f.load(addr),
			&bytecode.Meta{Key: bytecode.MetaKeyL4PROTO, Register: slot(f.slots)},
			loadTransport(slot(f.slots+1), port, 2),
			&bytecode.Lookup{SourceRegister: reg, SetName: set},
		),
	}
}

// Offsets of the ports in the headers of TCP, UDP and SCTP, in bytes.
const (
	sourcePort      = 0
	destinationPort = 2
)

// loadTransport loads bytes of the transport header. A packet without these bytes, such as a later fragment, does not match the
// rule.
func loadTransport(register, offset, size uint32) bytecode.Any {
	return &bytecode.Payload{DestRegister: register, Base: bytecode.PayloadBaseTransportHeader, Offset: offset, Len: size}
}
