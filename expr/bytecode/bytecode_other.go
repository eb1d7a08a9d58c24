//go:build !linux

package bytecode

// Any is an expression: a pointer to a struct of this package.
type Any any

// The expressions, with the fields that package expr uses.
type (
	Bitwise struct {
		SourceRegister, DestRegister, Len uint32
		Mask, Xor                         []byte
	}
	Byteorder struct {
		SourceRegister, DestRegister uint32
		Op                           ByteorderOp
		Len, Size                    uint32
	}
	Cmp struct {
		Op       CmpOp
		Register uint32
		Data     []byte
	}
	Counter struct{}
	Ct      struct {
		Register     uint32
		Key          CtKey
		Direction    uint32
		OptDirection bool
	}
	Limit struct {
		Type  LimitType
		Rate  uint64
		Over  bool
		Unit  LimitTime
		Burst uint32
	}
	Log struct {
		Level LogLevel
		Key   uint32
		Group uint16
		Data  []byte
	}
	Lookup struct {
		SourceRegister uint32
		SetName        string
		Invert         bool
	}
	Meta struct {
		Key      MetaKey
		Register uint32
	}
	Payload struct {
		DestRegister uint32
		Base         PayloadBase
		Offset, Len  uint32
	}
	Range struct {
		Op               CmpOp
		Register         uint32
		FromData, ToData []byte
	}
	Reject struct {
		Type uint32
		Code uint8
	}
	Rt struct {
		Register uint32
		Key      RtKey
	}
	Verdict struct {
		Kind  VerdictKind
		Chain string
	}
)

// The types of their fields.
type (
	ByteorderOp uint32
	CmpOp       uint32
	CtKey       uint32
	LimitTime   uint64
	LimitType   uint32
	LogLevel    uint32
	MetaKey     uint32
	PayloadBase uint32
	RtKey       uint32
	VerdictKind int64
)

// The values of linux/netfilter/nf_tables.h.
const (
	ByteorderHton ByteorderOp = 1

	CmpOpEq  CmpOp = 0
	CmpOpNeq CmpOp = 1
	CmpOpLt  CmpOp = 2
	CmpOpLte CmpOp = 3
	CmpOpGt  CmpOp = 4
	CmpOpGte CmpOp = 5

	CtKeySTATE     CtKey = 0
	CtKeyDIRECTION CtKey = 1
	CtKeyPROTODST  CtKey = 12

	LimitTypePkts LimitType = 0

	MetaKeyPROTOCOL MetaKey = 1
	MetaKeyMARK     MetaKey = 3
	MetaKeyIIFNAME  MetaKey = 6
	MetaKeyOIFNAME  MetaKey = 7
	MetaKeyNFPROTO  MetaKey = 15
	MetaKeyL4PROTO  MetaKey = 16
	MetaKeyPKTTYPE  MetaKey = 19

	PayloadBaseNetworkHeader   PayloadBase = 1
	PayloadBaseTransportHeader PayloadBase = 2

	RtNexthop4 RtKey = 1
	RtNexthop6 RtKey = 2

	VerdictReturn VerdictKind = -5
	VerdictGoto   VerdictKind = -4
	VerdictJump   VerdictKind = -3
)

// The verdicts of linux/netfilter.h.
const (
	VerdictDrop   VerdictKind = 0
	VerdictAccept VerdictKind = 1
)

// The states of a connection, as bits (NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h).
const (
	CtStateBitINVALID     uint32 = 1
	CtStateBitESTABLISHED uint32 = 2
	CtStateBitRELATED     uint32 = 4
	CtStateBitNEW         uint32 = 8
	CtStateBitUNTRACKED   uint32 = 64
)

// Units of a limit, seconds.
const (
	LimitTimeSecond LimitTime = 1
	LimitTimeMinute LimitTime = 60
	LimitTimeHour   LimitTime = 60 * 60
	LimitTimeDay    LimitTime = 24 * 60 * 60
)

// The levels of syslog (RFC 5424, section 6.2.1).
const (
	LogLevelEmerg   LogLevel = 0
	LogLevelAlert   LogLevel = 1
	LogLevelCrit    LogLevel = 2
	LogLevelErr     LogLevel = 3
	LogLevelWarning LogLevel = 4
	LogLevelNotice  LogLevel = 5
	LogLevelInfo    LogLevel = 6
	LogLevelDebug   LogLevel = 7
)
