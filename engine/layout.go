package engine

import (
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Data types as stock nft numbers them (nftables, include/datatype.h, enum datatypes). The kernel only stores them.
// The types of a concatenation are packed six bits each, the first type highest.
const (
	typeIPAddr      = 7
	typeIP6Addr     = 8
	typeInetProto   = 12
	typeInetService = 13
	typeBits        = 6
)

// setConcat is NFT_SET_CONCAT of linux/netfilter/nf_tables.h, which x/sys lacks.
const setConcat = 0x80

// setLayout describes the key of a set for the kernel and for nft.
type setLayout struct {
	// keyLen is in bytes; each field of a concatenation is padded to four.
	flags   uint32
	keyType uint32
	keyLen  uint32
	// fields are the unpadded lengths of the fields of a concatenation with ranges; nil for other sets.
	fields    []uint32
	hostOrder bool          // the packet has the key in the byte order of the host
	timeout   time.Duration // lifetime of an element; 0: no end
}

// layoutOf returns the layout of a kind of set. kindOf compares it with sets in the kernel, so no two kinds have the
// same layout.
func layoutOf(e Elements) setLayout {
	switch e := e.(type) {
	case Addrs:
		if e.Family == sets.V4 {
			return setLayout{flags: uapi.NFT_SET_INTERVAL, keyType: typeIPAddr, keyLen: 4}
		}
		return setLayout{flags: uapi.NFT_SET_INTERVAL, keyType: typeIP6Addr, keyLen: 16}
	case Hosts:
		l := layoutOf(Addrs{Family: e.Family})
		l.flags = 0
		return l
	case Ports:
		l := setLayout{keyType: typeInetService<<typeBits | typeInetProto, keyLen: 8}
		if !e.IsPlain() {
			l.flags, l.fields = uapi.NFT_SET_INTERVAL|setConcat, []uint32{2, 1}
		}
		return l
	case Endpoints:
		l := setLayout{keyType: typeIPAddr<<(2*typeBits) | typeInetProto<<typeBits | typeInetService, keyLen: 12}
		if e.Family == sets.V6 {
			l.keyType = typeIP6Addr<<(2*typeBits) | typeInetProto<<typeBits | typeInetService
			l.keyLen = 24
		}
		return l
	case Numbers:
		return setLayout{
			flags:     uapi.NFT_SET_INTERVAL,
			keyType:   uint32(e.Type),
			keyLen:    uint32(e.Type.Len()),
			hostOrder: e.Type.HostOrder(),
		}
	case Served:
		return setLayout{flags: uapi.NFT_SET_TIMEOUT, keyType: typeInetService, keyLen: 2, timeout: servedLife}
	}
	return setLayout{}
}

// servedLife is the lifetime of a port in a set of kind Served. An entry of UDP without packets lives for 120 s, so its connection
// would then be new anyway. servedLifeText is the same time as nft prints it.
const (
	servedLife     = 150 * time.Second
	servedLifeText = "2m30s"
)

// isServed reports whether the set is the set of served ports, which the Engine fills itself.
func isServed(e Elements) bool {
	_, ok := e.(Served)
	return ok
}
