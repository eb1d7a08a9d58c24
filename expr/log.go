package expr

import (
	"fmt"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
)

// LogLevel is a level of syslog. The zero value is emerg.
type LogLevel uint32

// LogWarning is the level that nft takes if a rule has none, and that it does not print.
const LogWarning = LogLevel(bytecode.LogLevelWarning)

// logLevels are the names that nft prints for the levels of syslog (RFC 5424, section 6.2.1).
var logLevels = newSymbols(
	symbol{"emerg", uint32(bytecode.LogLevelEmerg)}, symbol{"alert", uint32(bytecode.LogLevelAlert)},
	symbol{"crit", uint32(bytecode.LogLevelCrit)}, symbol{"err", uint32(bytecode.LogLevelErr)},
	symbol{"warn", uint32(bytecode.LogLevelWarning)}, symbol{"notice", uint32(bytecode.LogLevelNotice)},
	symbol{"info", uint32(bytecode.LogLevelInfo)}, symbol{"debug", uint32(bytecode.LogLevelDebug)},
)

// LogLevelByName returns the level with the name that nft uses.
func LogLevelByName(name string) (LogLevel, bool) {
	n, ok := logLevels.byName[name]
	return LogLevel(n), ok
}

// MaxLogPrefix is the maximum length of a prefix in bytes: NF_LOG_PREFIXLEN without the NUL.
const MaxLogPrefix = 127

// LogTo returns `log prefix "PREFIX" group GROUP`: the kernel hands the packet to the socket in the packet's namespace that has
// bound the group (NFLOG, linux/netfilter/nfnetlink_log.h). Without such a socket the statement does nothing.
func LogTo(group uint16, prefix string) Statement {
	return Statement{Text: fmt.Sprintf(`log prefix "%s" group %d`, prefix, group), Exprs: []bytecode.Any{&bytecode.Log{
		Key: 1<<uapi.NFTA_LOG_GROUP | 1<<uapi.NFTA_LOG_PREFIX, Group: group, Data: slices.Clip([]byte(prefix)),
	}}}
}

// IsLoggedTo reports whether a rule hands packets to the NFLOG group.
func IsLoggedTo(rule []Statement, group uint16) bool {
	for _, s := range rule {
		for _, e := range s.Exprs {
			if log, ok := e.(*bytecode.Log); ok && log.Key&(1<<uapi.NFTA_LOG_GROUP) != 0 && log.Group == group {
				return true
			}
		}
	}
	return false
}

// Log writes a line about the packet to the kernel's log. Since the rule is in the namespace of a pod, the line appears
// only if the host sets net.netfilter.nf_log_all_netns.
type Log struct {
	Prefix    string
	HasPrefix bool // an empty prefix differs from no prefix
	Level     LogLevel
}

// Statement returns `log prefix "PREFIX" level LEVEL`.
func (l Log) Statement() Statement {
	// The level is always sent, since the kernel always dumps it and Canonical compares it.
	log := &bytecode.Log{Level: bytecode.LogLevel(l.Level), Key: 1 << uapi.NFTA_LOG_LEVEL}
	text := "log"
	if l.HasPrefix {
		text += ` prefix "` + l.Prefix + `"`
		log.Key |= 1 << uapi.NFTA_LOG_PREFIX
		// Clipped, since Marshal appends a NUL, which must not write into a shared array: statements are shared.
		log.Data = slices.Clip([]byte(l.Prefix))
	}
	if l.Level != LogWarning {
		text += " level " + logLevels.byNumber[uint32(l.Level)]
	}
	return Statement{Text: text, Exprs: []bytecode.Any{log}}
}
