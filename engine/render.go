package engine

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Render writes the table of a family as `nft --stateless list table` prints it, except for the line breaks in long
// lists of elements; `nft -f` reads it. It writes nothing for an empty Ruleset.
func Render(w io.Writer, f expr.TableFamily, rs Ruleset) error {
	if rs.IsEmpty() {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "table %s %s {\n", f, TableName)
	// nft prints an empty line between two objects.
	blank := ""
	for _, s := range rs.Sets {
		b.WriteString(blank)
		renderSet(&b, s)
		blank = "\n"
	}
	for _, c := range rs.Chains {
		b.WriteString(blank)
		renderChain(&b, f, c)
		blank = "\n"
	}
	b.WriteString("}\n")
	_, err := w.Write(b.Bytes())
	return err
}

// renderSet writes a set with its elements.
// For example:
//
//	set peers-2d3e51bfc748c53a-v4 {
//		type ipv4_addr
//		flags interval
//		elements = { 10.10.0.11 }
//	}
func renderSet(b *bytes.Buffer, s *Set) {
	fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", s.Name, typeText(s.Elements))
	if layoutOf(s.Elements).flags&uapi.NFT_SET_INTERVAL != 0 {
		b.WriteString("\t\tflags interval\n")
	}
	if isServed(s.Elements) {
		b.WriteString("\t\tflags timeout\n\t\ttimeout " + servedLifeText + "\n")
	}
	if s.Comment != "" {
		fmt.Fprintf(b, "\t\tcomment \"%s\"\n", commentText(s.Comment))
	}
	if elements := elementTexts(s.Elements); len(elements) > 0 {
		fmt.Fprintf(b, "\t\telements = { %s }\n", strings.Join(elements, ",\n\t\t\t     "))
	}
	b.WriteString("\t}\n")
}

// typeText returns the type of a set as nft prints it.
func typeText(e Elements) string {
	switch e := e.(type) {
	case Addrs:
		return addrType(e.Family)
	case Hosts:
		return addrType(e.Family)
	case Ports:
		return "inet_service . inet_proto"
	case Endpoints:
		return addrType(e.Family) + " . inet_proto . inet_service"
	case Numbers:
		return e.Type.String()
	case Served:
		return "inet_service"
	}
	return ""
}

// addrType returns nft's name of the address type of a family.
func addrType(f sets.Family) string {
	if f == sets.V4 {
		return "ipv4_addr"
	}
	return "ipv6_addr"
}

// elementTexts lists the elements as nft prints them, in the order in which fillSet sends them.
func elementTexts(e Elements) []string {
	var texts []string
	switch e := e.(type) {
	case Addrs:
		for r := range e.Addrs.Ranges(e.Family) {
			texts = append(texts, r.String())
		}
	case Hosts:
		for a := range e.Addrs.Hosts(e.Family) {
			texts = append(texts, a.String())
		}
	case Ports:
		for r := range e.Ports.Ranges() {
			// A plain set has an element for each port.
			for ; e.IsPlain() && r.From < r.To; r.From++ {
				texts = append(texts, fmt.Sprintf("%d . %s", r.From, protocolText(r.Proto)))
			}
			texts = append(texts, portText(r)+" . "+protocolText(r.Proto))
		}
	case Endpoints:
		for ep := range e.Endpoints.All(e.Family) {
			texts = append(texts, fmt.Sprintf("%s . %s . %d", ep.Addr, protocolText(ep.Proto), ep.Port))
		}
	case Numbers:
		for r := range e.Numbers.Ranges() {
			texts = append(texts, e.Type.ElementText(r))
		}
	}
	return texts
}

// portText returns a port or a range of ports.
func portText(r sets.PortRange) string {
	if r.From == r.To {
		return strconv.Itoa(int(r.From))
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// protocolText returns the name that nft prints for a protocol with ports.
func protocolText(number uint8) string {
	switch number {
	case uapi.IPPROTO_TCP:
		return "tcp"
	case uapi.IPPROTO_UDP:
		return "udp"
	case uapi.IPPROTO_SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(number))
}

// renderChain writes a chain with its rules and their comments.
func renderChain(b *bytes.Buffer, f expr.TableFamily, c *Chain) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Hook != HookNone {
		fmt.Fprintf(b, "\t\ttype filter hook %s priority %s; policy accept;\n", c.Hook, places[c.Hook].text[f])
	}
	for i := range c.Rules {
		b.WriteString("\t\t" + c.Rules[i].textIn(f))
		if c.Rules[i].Comment != "" {
			fmt.Fprintf(b, " comment \"%s\"", commentText(c.Rules[i].Comment))
		}
		b.WriteByte('\n')
	}
	b.WriteString("\t}\n")
}

// maxComment is NFTNL_UDATA_COMMENT_MAXLEN: the bytes of a comment and its NUL.
const maxComment = 128

// commentText returns the comment in a form that the kernel stores and nft prints: cut to the limit, and without the quote
// that would end nft's string when it is read back.
func commentText(text string) string {
	return strings.ReplaceAll(text[:min(len(text), maxComment-1)], `"`, "'")
}
