package bytecode

import "github.com/google/nftables/expr"

// The expressions.
type (
	Any       = expr.Any
	Bitwise   = expr.Bitwise
	Byteorder = expr.Byteorder
	Cmp       = expr.Cmp
	Counter   = expr.Counter
	Ct        = expr.Ct
	Limit     = expr.Limit
	Log       = expr.Log
	Lookup    = expr.Lookup
	Meta      = expr.Meta
	Payload   = expr.Payload
	Range     = expr.Range
	Reject    = expr.Reject
	Rt        = expr.Rt
	Verdict   = expr.Verdict
)

// The types of their fields.
type (
	ByteorderOp = expr.ByteorderOp
	CmpOp       = expr.CmpOp
	CtKey       = expr.CtKey
	LimitTime   = expr.LimitTime
	LimitType   = expr.LimitType
	LogLevel    = expr.LogLevel
	MetaKey     = expr.MetaKey
	PayloadBase = expr.PayloadBase
	RtKey       = expr.RtKey
	VerdictKind = expr.VerdictKind
)

// The values of these types, and the bits of connection states.
const (
	ByteorderHton = expr.ByteorderHton

	CmpOpEq  = expr.CmpOpEq
	CmpOpNeq = expr.CmpOpNeq
	CmpOpLt  = expr.CmpOpLt
	CmpOpLte = expr.CmpOpLte
	CmpOpGt  = expr.CmpOpGt
	CmpOpGte = expr.CmpOpGte

	CtKeySTATE     = expr.CtKeySTATE
	CtKeyDIRECTION = expr.CtKeyDIRECTION
	CtKeyPROTODST  = expr.CtKeyPROTODST

	CtStateBitINVALID     = expr.CtStateBitINVALID
	CtStateBitESTABLISHED = expr.CtStateBitESTABLISHED
	CtStateBitRELATED     = expr.CtStateBitRELATED
	CtStateBitNEW         = expr.CtStateBitNEW
	CtStateBitUNTRACKED   = expr.CtStateBitUNTRACKED

	LimitTimeSecond = expr.LimitTimeSecond
	LimitTimeMinute = expr.LimitTimeMinute
	LimitTimeHour   = expr.LimitTimeHour
	LimitTimeDay    = expr.LimitTimeDay
	LimitTypePkts   = expr.LimitTypePkts

	LogLevelEmerg   = expr.LogLevelEmerg
	LogLevelAlert   = expr.LogLevelAlert
	LogLevelCrit    = expr.LogLevelCrit
	LogLevelErr     = expr.LogLevelErr
	LogLevelWarning = expr.LogLevelWarning
	LogLevelNotice  = expr.LogLevelNotice
	LogLevelInfo    = expr.LogLevelInfo
	LogLevelDebug   = expr.LogLevelDebug

	MetaKeyPROTOCOL = expr.MetaKeyPROTOCOL
	MetaKeyMARK     = expr.MetaKeyMARK
	MetaKeyIIFNAME  = expr.MetaKeyIIFNAME
	MetaKeyOIFNAME  = expr.MetaKeyOIFNAME
	MetaKeyNFPROTO  = expr.MetaKeyNFPROTO
	MetaKeyL4PROTO  = expr.MetaKeyL4PROTO
	MetaKeyPKTTYPE  = expr.MetaKeyPKTTYPE

	PayloadBaseNetworkHeader   = expr.PayloadBaseNetworkHeader
	PayloadBaseTransportHeader = expr.PayloadBaseTransportHeader

	RtNexthop4 = expr.RtNexthop4
	RtNexthop6 = expr.RtNexthop6

	VerdictReturn = expr.VerdictReturn
	VerdictGoto   = expr.VerdictGoto
	VerdictJump   = expr.VerdictJump
	VerdictDrop   = expr.VerdictDrop
	VerdictAccept = expr.VerdictAccept
)
