package custom_test

import (
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// form is a line of the grammar.
type form struct {
	line string
	nft  string // the line that nft compiles to the same rule, if it is not line itself; or otherwise
}

// otherwise marks a form that nft compiles to a different rule with the same effect.
const otherwise = "otherwise"

// forms returns every form of a rule for packets of a family.
func forms(f sets.Family) []form {
	list := familyForms(f)
	for _, line := range strings.Split(strings.TrimSpace(anyFamily), "\n") {
		list = append(list, form{line: strings.TrimSpace(line)})
	}
	return append(list,
		// nft would look up the state in a set. A state is a single bit, so a mask does the same.
		form{"ct state { new, established } accept", "ct state established,new accept"},
		form{"ct state != { new, related } drop", "ct state ! related,new drop"},
		form{"ct state ! invalid drop", "ct state != invalid drop"},
		form{"ct state == new accept", "ct state new accept"},
		// nft keeps the mask even if it has all bits.
		form{"meta mark & 0xffffffff == 5 accept", "meta mark 5 accept"},
		// The check of the protocol comes right before the match of the port.
		form{"th dport 53 meta l4proto udp accept", "udp dport 53 accept"},
		form{"tcp dport 53 meta l4proto tcp accept", "tcp dport 53 accept"},
		form{"meta l4proto tcp meta l4proto tcp accept", "meta l4proto tcp accept"},
		form{"tcp dport 80-80 accept", "tcp dport 80 accept"},
		// nft compares both ports at once.
		form{"tcp sport 1 tcp dport 2 accept", otherwise},
		form{"th sport 1 th dport 2 accept", otherwise},
		// nft makes a hash set of marks if no mark is a range, and then does not swap the bytes.
		form{"meta mark { 1, 3 } accept", otherwise},
	)
}

// familyForms returns the forms with addresses and ICMP, for a family.
func familyForms(f sets.Family) []form {
	text := familyLines
	words := strings.NewReplacer("IP", "ip", "ICMP", "icmp", "ONE", "10.1.2.3", "TWO", "10.1.2.9", "BYTES", "10.1.0.0/16",
		"BITS", "10.1.2.0/31", "ALL", "0.0.0.0/0", "HOST", "10.1.2.3/32", "QUERY", "echo-request", "ERROR", "time-exceeded")
	codes := "net-unreachable host-unreachable prot-unreachable port-unreachable frag-needed net-prohibited host-prohibited admin-prohibited"
	if f == sets.V6 {
		words = strings.NewReplacer("IP", "ip6", "ICMP", "icmpv6", "ONE", "fd00::3", "TWO", "fd00::9", "BYTES", "fd00::/64",
			"BITS", "fd00::/10", "ALL", "::/0", "HOST", "fd00::3/128", "QUERY", "nd-neighbor-solicit", "ERROR", "packet-too-big")
		codes = "no-route admin-prohibited addr-unreachable port-unreachable policy-fail reject-route"
	}
	protocolFirst := "meta l4proto tcp IP saddr ONE tcp dport 80 accept"
	list := []form{
		// nft checks the protocol where it is named first.
		{words.Replace(protocolFirst), words.Replace(strings.TrimPrefix(protocolFirst, "meta l4proto tcp "))},
		// nft checks the family at the start of the rule.
		{words.Replace("counter reject with ICMP admin-prohibited"), otherwise},
		{words.Replace("tcp dport 80 reject with ICMP admin-prohibited"), otherwise},
	}
	for _, code := range strings.Fields(codes) {
		text += "reject with ICMP type " + code + "\nIP saddr ONE reject with ICMP " + code + "\n"
	}
	for _, line := range strings.Split(strings.TrimSpace(words.Replace(text)), "\n") {
		list = append(list, form{line: strings.TrimSpace(line)})
	}
	return list
}

const familyLines = `
	IP saddr ONE accept
	IP saddr != ONE accept
	IP saddr HOST accept
	IP saddr BYTES accept
	IP saddr != BYTES accept
	IP saddr BITS accept
	IP saddr != BITS accept
	IP saddr ALL accept
	IP saddr ONE-TWO accept
	IP saddr != ONE-TWO accept
	IP saddr { ONE } accept
	IP saddr { ONE, TWO } accept
	IP saddr { BITS, TWO } accept
	IP saddr != { ONE-TWO, ALL } accept
	IP daddr ONE accept
	IP daddr != BYTES accept
	IP daddr BITS accept
	IP daddr ONE-TWO accept
	IP daddr { ONE, TWO } accept
	IP daddr != { ONE, TWO } accept
	IP saddr ONE IP daddr TWO accept
	IP saddr ONE tcp dport 80 IP daddr TWO accept
	ICMP type QUERY accept
	ICMP type != QUERY accept
	ICMP type 200 accept
	ICMP type 3-8 accept
	ICMP type != 3-8 accept
	ICMP type { QUERY, ERROR } accept
	ICMP type != { QUERY, 200-255 } accept
	IP saddr ONE ICMP type QUERY accept
	ICMP type QUERY IP saddr ONE counter accept
	IP saddr ONE reject
	IP saddr ONE reject with icmpx no-route
	ICMP type QUERY reject
	tcp dport 80 IP saddr ONE reject
	IP saddr ONE reject with tcp reset
	IP saddr ONE tcp dport 80 reject with tcp reset
	meta l4proto tcp IP saddr ONE accept
`

const anyFamily = `
	tcp dport 80 accept
	tcp dport ssh accept
	tcp dport != 80 accept
	tcp dport 80-4000 accept
	tcp dport != 80-4000 accept
	tcp dport { 80, https, 1000-2000 } accept
	tcp dport != { 80, 443 } accept
	tcp sport 80 accept
	tcp sport 0-65535 accept
	tcp sport 1024-65535 tcp dport 80 accept
	tcp sport { 1, 3 } tcp dport { 5, 7 } accept
	udp dport 53 accept
	udp sport != { 53, 5353 } accept
	sctp dport 2905 accept
	sctp sport 1-5 accept
	th dport 53 accept
	th sport != 53-54 accept
	th dport { 53, 853 } accept
	meta l4proto tcp accept
	meta l4proto != tcp accept
	meta l4proto 99 accept
	meta l4proto 6-17 accept
	meta l4proto != 6-17 accept
	meta l4proto { tcp, udp, 132 } accept
	meta l4proto != { tcp, 200-255 } accept
	meta l4proto { tcp, udp } th dport 53 accept
	meta l4proto udp th dport 53 accept
	meta l4proto udp udp dport 53 accept
	iifname net1 accept
	meta iifname "net1" accept
	iifname != "net1" accept
	iifname "net*" accept
	oifname "net1" accept
	meta oifname != "net*" accept
	iifname "net1" oifname "net2" accept
	meta mark 1 accept
	mark 0x10 accept
	meta mark != 0x10 accept
	meta mark 5-9 accept
	meta mark != 5-9 accept
	meta mark { 1, 5-9 } accept
	meta mark != { 1, 5-9, 0xffffffff } accept
	meta mark & 0xff00 == 0x1200 accept
	meta mark and 0xff00 == 0x1200 accept
	meta mark & 0xff00 != 0x1200 accept
	meta mark & 0xff000000 == 0x12000000 accept
	meta mark & 0x80000000 == 0 accept
	meta mark 0x12000000/8 accept
	meta mark != 0x12000000/8 accept
	meta mark { 0x12000000/8, 4-7 } accept
	ct state new accept
	ct state != established accept
	ct state established,related accept
	ct state new,invalid,untracked drop
	ct state ! new,related drop
	counter
	counter accept
	tcp dport 80 counter
	log
	log prefix "custom: " accept
	log prefix custom level info
	log level debug prefix "x"
	log level emerg
	log level alert
	log level crit
	log level err
	log level warn
	log level notice
	limit rate 10/second accept
	limit rate 10/minute burst 20 packets accept
	limit rate over 10/hour drop
	limit rate over 10/day burst 7 packets drop
	accept
	drop
	return
	reject
	reject with icmpx type no-route
	reject with icmpx host-unreachable
	reject with icmpx admin-prohibited
	reject with icmpx port-unreachable
	reject with tcp reset
	tcp dport 80 reject
	tcp dport 80 reject with tcp reset
	counter reject with tcp reset
	meta l4proto tcp reject with tcp reset
	accept comment "all of it"
	tcp dport 80 limit rate 1/second burst 3 packets counter log prefix "http " accept comment web
`
