package custom

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// list reads a value, or several values in braces, with commas between them. As in nft, a comma may follow the last
// value. list calls read for each value, and returns the number of values.
func (p *parser) list(read func() *SyntaxError) (count int, err *SyntaxError) {
	if !p.take("{") {
		return 1, read()
	}
	for {
		if err := read(); err != nil {
			return 0, err
		}
		count++
		comma := p.take(",")
		if p.take("}") {
			return count, nil
		}
		if !comma {
			return 0, p.wrong(p.peek(), `"," or "}"`)
		}
	}
}

// numbers is the right side of a match: a single range, or a set if the file has a list in braces.
type numbers struct {
	only sets.NumberRange
	set  string // name of the set; empty: only
}

// match makes the match of a field with the numbers: `tcp dport 80-90` or `tcp dport @custom-…`.
func (n numbers) match(f expr.NumberField, op expr.Op) expr.Statement {
	if n.set != "" {
		return f.In(op, n.set)
	}
	return f.Range(op, n.only)
}

// single returns the number if it is a single number and no range or set.
func (n numbers) single() (uint32, bool) { return n.only.From, n.set == "" && n.only.From == n.only.To }

// numbers reads the right side of a match, and adds its set to the rules if it is a list.
func (p *parser) numbers(d expr.Datatype) (numbers, *SyntaxError) {
	var ranges []sets.NumberRange
	count, err := p.list(func() *SyntaxError {
		r, err := p.numberRange(d)
		ranges = append(ranges, r)
		return err
	})
	// A list with a single value is a single match, as in nft.
	switch {
	case err != nil:
		return numbers{}, err
	case count == 1:
		return numbers{only: ranges[0]}, nil
	}
	s := numberSet(d, sets.NewNumbers(ranges...))
	p.addSet(s)
	return numbers{set: s.Name}, nil
}

// numberRange reads a number, a name, or a range: two numbers with a dash between them.
func (p *parser) numberRange(d expr.Datatype) (sets.NumberRange, *SyntaxError) {
	t := p.next()
	// The whole token comes first, since a name may contain a dash: ftp-data, echo-request.
	if n, ok := p.value(d, t); ok {
		return sets.NumberRange{From: n, To: n}, nil
	}
	if value, mask, ok := parseMarkPrefix(t); ok && d == expr.TypeMark {
		return sets.NumberRange{From: value, To: value | ^mask}, nil
	}
	first, last, isRange := strings.Cut(t.text, "-")
	from, ok := parseNumber(d, first)
	to, ok2 := parseNumber(d, last)
	if t.kind != word || !isRange || !ok || !ok2 {
		return sets.NumberRange{}, p.wrong(t, expectedOf(d))
	}
	if to < from {
		return sets.NumberRange{}, p.wrong(t, "a range that does not end before its start")
	}
	return sets.NumberRange{From: from, To: to}, nil
}

// number reads a single number or name, for a mask or a masked value. It also returns the token, for errors of the
// caller.
func (p *parser) number(d expr.Datatype) (uint32, token, *SyntaxError) {
	t := p.next()
	n, ok := p.value(d, t)
	if !ok {
		return 0, t, p.wrong(t, expectedOf(d))
	}
	return n, t, nil
}

// value returns the number that a token stands for, as a number or as a name. A quoted text is no value.
func (p *parser) value(d expr.Datatype, t token) (uint32, bool) {
	if t.kind != word {
		return 0, false
	}
	if n, ok := d.Number(t.text); ok {
		return n, true
	}
	if n, ok := services[t.text]; ok && d == expr.TypeInetService {
		return uint32(n), true
	}
	return parseNumber(d, t.text)
}

// parseNumber reads a decimal or hexadecimal number. It refuses a leading zero: nft would read an octal number.
func parseNumber(d expr.Datatype, text string) (uint32, bool) {
	digits, base := text, 10
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		digits, base = hex, 16
		// nft reads 010 as 8 and an administrator means 10, so neither is assumed.
	} else if len(text) > 1 && text[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, base, 32)
	return uint32(n), err == nil && uint32(n) <= d.Max()
}

// parseMarkPrefix reads a mark with a prefix length: VALUE/BITS. nft prints a mask that has only leading bits in this form.
func parseMarkPrefix(t token) (value, mask uint32, ok bool) {
	number, length, isPrefix := strings.Cut(t.text, "/")
	value, okValue := parseNumber(expr.TypeMark, number)
	bits, okBits := parseNumber(expr.TypeMark, length)
	if t.kind != word || !isPrefix || !okValue || !okBits || bits < 1 || bits > 32 {
		return 0, 0, false
	}
	// For example, /28 is 0xfffffff0.
	mask = ^uint32(0) << (32 - bits)
	return value, mask, value&^mask == 0
}

// expectedOf describes the values of a type, for errors.
func expectedOf(d expr.Datatype) string {
	switch d {
	case expr.TypeInetService:
		return "a port: a number up to 65535, the name of a common service, or two numbers with a dash"
	case expr.TypeInetProto:
		return "a protocol: its name, a number up to 255, or two numbers with a dash"
	case expr.TypeMark:
		return "a mark: a number of 32 bits"
	}
	return "a message type: its name, a number up to 255, or two numbers with a dash"
}

// addresses reads the right side of a match by address, and makes the match: an address, a prefix, a range, or a list
// of them in braces. It adds the set to the rules if it is a list.
func (p *parser) addresses(field expr.AddressField, op expr.Op) (expr.Statement, *SyntaxError) {
	var ranges []sets.AddrRange
	var only expr.Statement
	count, err := p.list(func() *SyntaxError {
		t := p.next()
		// nft takes host names too. They would be resolved at the start of the agent only, so they are an error.
		want := "an address, a prefix, or two addresses with a dash, of IP" + field.Family().String()
		if t.kind != word {
			return p.wrong(t, want)
		}
		if prefix, ok := parsePrefix(t.text, field.Family()); ok {
			ranges = append(ranges, rangeOf(prefix))
			only = field.Prefix(op, prefix)
			return nil
		}
		r, ok := parseAddrRange(t.text, field.Family())
		if !ok {
			return p.wrong(t, want)
		}
		ranges = append(ranges, r)
		only = field.Range(op, r)
		return nil
	})
	if err != nil || count == 1 {
		return only, err
	}
	// A set in the kernel has disjoint ranges. NewAddrs merges ranges that overlap or touch.
	s := addrSet(field.Family(), sets.NewAddrs(ranges...))
	p.addSet(s)
	return field.In(op, s.Name), nil
}

// parsePrefix reads ADDRESS/BITS. It refuses a prefix of the other family.
func parsePrefix(text string, f sets.Family) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	return prefix, err == nil && prefix.Addr().Is4() == (f == sets.V4)
}

// rangeOf returns the addresses of a prefix. Unlike sets.PrefixRange, it does not unmap: as in nft, a prefix within
// ::ffff:0:0/96 is a prefix of IPv6.
func rangeOf(p netip.Prefix) sets.AddrRange {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(last); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return sets.AddrRange{From: p.Addr(), To: to}
}

// parseAddrRange reads an address, or a range: two addresses with a dash between them.
func parseAddrRange(text string, f sets.Family) (sets.AddrRange, bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err := netip.ParseAddr(first)
	to, err2 := netip.ParseAddr(last)
	r := sets.AddrRange{From: from, To: to}
	return r, err == nil && err2 == nil && r.IsValid() && from.Is4() == (f == sets.V4)
}
