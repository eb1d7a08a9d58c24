package custom

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// list reads one value, or several in braces, each with read. It says how many.
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

// numbers are what a field is compared with: a range, or a set where the file has several in braces.
type numbers struct {
	only sets.NumberRange
	set  string
}

func (n numbers) match(f expr.NumberField, op expr.Op) expr.Statement {
	if n.set != "" {
		return f.In(op, n.set)
	}
	return f.Range(op, n.only)
}

// single says whether it is one number, and which.
func (n numbers) single() (uint32, bool) { return n.only.From, n.set == "" && n.only.From == n.only.To }

func (p *parser) numbers(d expr.Datatype) (numbers, *SyntaxError) {
	var ranges []sets.NumberRange
	count, err := p.list(func() *SyntaxError {
		r, err := p.numberRange(d)
		ranges = append(ranges, r)
		return err
	})
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

// numberRange reads a number, a name, or two numbers and a dash between them.
func (p *parser) numberRange(d expr.Datatype) (sets.NumberRange, *SyntaxError) {
	t := p.next()
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

// number reads one number.
func (p *parser) number(d expr.Datatype) (uint32, token, *SyntaxError) {
	t := p.next()
	n, ok := p.value(d, t)
	if !ok {
		return 0, t, p.wrong(t, expectedOf(d))
	}
	return n, t, nil
}

// value is the number that a token says, by itself or by name.
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

// parseNumber reads a decimal or hexadecimal number. A zero in front is refused: nft would take it for an octal one.
func parseNumber(d expr.Datatype, text string) (uint32, bool) {
	digits, base := text, 10
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		digits, base = hex, 16
	} else if len(text) > 1 && text[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, base, 32)
	return uint32(n), err == nil && uint32(n) <= d.Max()
}

// parseMarkPrefix reads a mark and how many of its leading bits matter, which is how nft prints a mask of leading ones.
func parseMarkPrefix(t token) (value, mask uint32, ok bool) {
	number, length, isPrefix := strings.Cut(t.text, "/")
	value, okValue := parseNumber(expr.TypeMark, number)
	bits, okBits := parseNumber(expr.TypeMark, length)
	if t.kind != word || !isPrefix || !okValue || !okBits || bits < 1 || bits > 32 {
		return 0, 0, false
	}
	mask = ^uint32(0) << (32 - bits)
	return value, mask, value&^mask == 0
}

// expectedOf is what a value of the type can be, for errors.
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

// addresses reads what an address is compared with, and makes the match.
func (p *parser) addresses(field expr.AddressField, op expr.Op) (expr.Statement, *SyntaxError) {
	var ranges []sets.AddrRange
	var only expr.Statement
	count, err := p.list(func() *SyntaxError {
		t := p.next()
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
	s := addrSet(field.Family(), sets.NewAddrs(ranges...))
	p.addSet(s)
	return field.In(op, s.Name), nil
}

func parsePrefix(text string, f sets.Family) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	return prefix, err == nil && prefix.Addr().Is4() == (f == sets.V4)
}

// rangeOf is the addresses of a prefix as it is written: one within ::ffff:0:0/96 is of IPv6, as it is in nft.
func rangeOf(p netip.Prefix) sets.AddrRange {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(last); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return sets.AddrRange{From: p.Addr(), To: to}
}

// parseAddrRange reads an address, or two and a dash between them.
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
