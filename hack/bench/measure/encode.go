package main

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// handles are the kernel's handles of the rules, by chain.
// The slice of a chain is in the order of its rules, as the kernel dumps them.
type handles map[string][]uint64

// encodeTable returns the batch that creates a whole table.
func encodeTable(rs engine.Ruleset) []byte {
	d := &delta{newSets: rs.Sets, newChains: rs.Chains}
	return encode(d, nil, func(m *messages) {
		m.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func() {
			m.text(unix.NFTA_TABLE_NAME, engine.TableName)
		})
	})
}

// encodeNoTable returns the batch that deletes the table with all its content.
func encodeNoTable() []byte {
	return encode(&delta{}, nil, func(m *messages) {
		m.message(unix.NFT_MSG_DELTABLE, 0, func() { m.text(unix.NFTA_TABLE_NAME, engine.TableName) })
	})
}

// encode returns the batch of the change. first appends messages before it.
// handles may be nil if the change has no rules.
func encode(d *delta, h handles, first func(*messages)) []byte {
	m := &messages{}
	m.batch(func() {
		if first != nil {
			first(m)
		}
		for i, s := range d.newSets {
			// The number identifies the set within the batch.
			m.newSet(s, i+1)
		}
		for _, e := range d.elements {
			// Deletions come first: a range that grows overlaps its old form, and the kernel refuses overlapping
			// ranges.
			m.elements(unix.NFT_MSG_DELSETELEM, e.set, addressElements(e.old, e.isHash))
			m.elements(unix.NFT_MSG_NEWSETELEM, e.set, addressElements(e.more, e.isHash))
		}
		for _, c := range d.newChains {
			m.newChain(c)
		}
		for _, c := range d.newChains {
			for i := range c.Rules {
				m.newRule(c.Name, &c.Rules[i], unix.NLM_F_APPEND, 0)
			}
		}
		for _, r := range d.newRules {
			// Without a position and without NLM_F_APPEND, the kernel puts the rule at the start of the chain.
			if r.after == 0 {
				m.newRule(r.chain, r.rule, 0, 0)
			} else {
				m.newRule(r.chain, r.rule, unix.NLM_F_APPEND, h[r.chain][r.after-1])
			}
		}
		m.deletions(d, h)
	})
	return m.buf
}

// deletions appends the deletions: rules, then chains, then sets, as each can only be deleted when nothing uses it
// any more.
func (m *messages) deletions(d *delta, h handles) {
	for _, r := range d.oldRules {
		m.message(unix.NFT_MSG_DELRULE, 0, func() {
			m.text(unix.NFTA_RULE_TABLE, engine.TableName)
			m.text(unix.NFTA_RULE_CHAIN, r.chain)
			m.u64(unix.NFTA_RULE_HANDLE, h[r.chain][r.after])
		})
	}
	for _, c := range d.oldChains {
		m.message(unix.NFT_MSG_DELRULE, 0, func() { // all rules
			m.text(unix.NFTA_RULE_TABLE, engine.TableName)
			m.text(unix.NFTA_RULE_CHAIN, c.Name)
		})
		m.message(unix.NFT_MSG_DELCHAIN, 0, func() {
			m.text(unix.NFTA_CHAIN_TABLE, engine.TableName)
			m.text(unix.NFTA_CHAIN_NAME, c.Name)
		})
	}
	for _, s := range d.oldSets {
		m.message(unix.NFT_MSG_DELSET, 0, func() {
			m.text(unix.NFTA_SET_TABLE, engine.TableName)
			m.text(unix.NFTA_SET_NAME, s.Name)
		})
	}
}

// newChain creates a base chain of type filter with policy accept, or a regular chain.
func (m *messages) newChain(c *engine.Chain) {
	m.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func() {
		m.text(unix.NFTA_CHAIN_TABLE, engine.TableName)
		m.text(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook == engine.HookNone {
			return
		}
		m.nest(unix.NLA_F_NESTED|unix.NFTA_CHAIN_HOOK, func() {
			m.u32(unix.NFTA_HOOK_HOOKNUM, int(c.Hook.Number()))
			m.u32(unix.NFTA_HOOK_PRIORITY, int(uint32(c.Hook.Priority(engine.Inet))))
		})
		m.u32(unix.NFTA_CHAIN_POLICY, 1) // accept
		m.text(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

// newRule adds a rule: with the flag NLM_F_APPEND at the end of the chain, or behind the rule with the handle; without it at the
// start of the chain.
func (m *messages) newRule(chain string, r *engine.Rule, place int, behind uint64) {
	// The expressions of a rule are the product's: the floor checks their way into the kernel, not their bytes.
	expressions, err := expr.Marshal(expr.Inet, r.Statements)
	if err != nil {
		panic(err) // cannot happen: the engine accepted the ruleset
	}
	m.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|place, func() {
		m.text(unix.NFTA_RULE_TABLE, engine.TableName)
		m.text(unix.NFTA_RULE_CHAIN, chain)
		if behind != 0 {
			m.u64(unix.NFTA_RULE_POSITION, behind)
		}
		m.attr(unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, expressions...)
		if r.Comment != "" {
			m.attr(unix.NFTA_RULE_USERDATA, userdata(0, append([]byte(r.Comment), 0))...)
		}
	})
}

// userdata returns an entry of userdata in the format of nft.
func userdata(typ byte, value []byte) []byte { return append([]byte{typ, byte(len(value))}, value...) }

// keyOfSet is nft's number of the key type of a set, and the length of the key in bytes.
var keyOfSet = map[sets.Family][2]int{sets.V4: {7, 4}, sets.V6: {8, 16}}

// newSet creates the set and fills it. id is its number in the batch, from 1.
func (m *messages) newSet(s *engine.Set, id int) {
	const concatenation, interval = 0x80, unix.NFT_SET_INTERVAL
	// nft combines the types of a concatenation into a number, with 6 bits for each type: 13 is inet_service, 12 is
	// inet_proto.
	// The layout of a set of ports first; the cases below change it for the other kinds.
	flags, key, data := interval, [2]int{13<<6 | 12, 8}, []byte(nil) // inet_service . inet_proto
	list := portElements(s)
	switch e := s.Elements.(type) {
	case engine.Addrs:
		key, list = keyOfSet[e.Family], addressElements(rangesOf(s), false)
		data = userdata(0, []byte{2, 0, 0, 0}) // big endian
	case engine.Hosts:
		flags, key, list = 0, keyOfSet[e.Family], addressElements(rangesOf(s), true)
	case engine.Ports:
		if flags |= concatenation; e.IsPlain() {
			flags = 0
		}
	}
	if s.Comment != "" {
		data = append(data, userdata(7, append([]byte(s.Comment), 0))...)
	}
	m.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func() {
		m.text(unix.NFTA_SET_TABLE, engine.TableName)
		m.text(unix.NFTA_SET_NAME, s.Name)
		m.u32(unix.NFTA_SET_FLAGS, flags)
		m.u32(unix.NFTA_SET_KEY_TYPE, key[0])
		m.u32(unix.NFTA_SET_KEY_LEN, key[1])
		// The kernel requires a number for each new set of a batch.
		m.u32(unix.NFTA_SET_ID, id)
		if flags&concatenation != 0 {
			m.fieldLengths(2, 1)
		}
		if data != nil {
			m.attr(unix.NFTA_SET_USERDATA, data...)
		}
	})
	m.elements(unix.NFT_MSG_NEWSETELEM, s.Name, list)
}

// fieldLengths describes a concatenation to the kernel: the length of each field in bytes, without padding.
func (m *messages) fieldLengths(lengths ...int) {
	// The constants are NFTA_SET_DESC_CONCAT and NFTA_SET_FIELD_LEN of the kernel.
	const descConcat, fieldLen = 2, 1
	m.nest(unix.NLA_F_NESTED|unix.NFTA_SET_DESC, func() {
		m.nest(unix.NLA_F_NESTED|descConcat, func() {
			for _, n := range lengths {
				m.nest(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func() { m.u32(fieldLen, n) })
			}
		})
	})
}

// element is an element of a set. Concatenations use keyEnd, interval sets use isEnd.
// Keys are in network byte order. isEnd marks a key that is the first behind a range, not part of it.
type element struct {
	key, keyEnd []byte
	isEnd       bool
}

// addressElements returns the elements of a hash set, one for each address, or of an interval set, a start and an end for each
// range. No range of a world ends at the last address.
func addressElements(ranges []sets.AddrRange, isHash bool) []element {
	list := make([]element, 0, 2*len(ranges))
	for _, r := range ranges {
		list = append(list, element{key: r.From.AsSlice()})
		if !isHash {
			list = append(list, element{key: r.To.Next().AsSlice(), isEnd: true})
		}
	}
	return list
}

// portElements returns the elements of a set of ports, or nil for a set of addresses. A plain set is a hash set, so a
// range becomes an element for each port; the other sets have the first and the last key of each range.
func portElements(s *engine.Set) []element {
	p, ok := s.Elements.(engine.Ports)
	if !ok {
		return nil
	}
	var list []element
	// In a key, each field is padded to four bytes: port 80 of UDP is 00 50 00 00 11 00 00 00.
	key := func(port uint16, protocol byte) []byte {
		return append(binary.BigEndian.AppendUint16(nil, port), 0, 0, protocol, 0, 0, 0)
	}
	for r := range p.Ports.Ranges() {
		for ; p.IsPlain() && r.From < r.To; r.From++ {
			list = append(list, element{key: key(r.From, r.Proto)})
		}
		last := element{key: key(r.From, r.Proto)}
		if !p.IsPlain() {
			last.keyEnd = key(r.To, r.Proto)
		}
		list = append(list, last)
	}
	return list
}

// elements appends messages with the elements. An attribute holds at most 64 KiB, so a long list needs several messages.
func (m *messages) elements(typ int, set string, list []element) {
	// keyEnd is NFTA_SET_ELEM_KEY_END of the kernel. No element takes more than longest bytes.
	const keyEnd, longest = 10, 64
	flags := 0
	if typ == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	key := func(typ int, value []byte) {
		m.nest(unix.NLA_F_NESTED|typ, func() { m.attr(unix.NFTA_DATA_VALUE, value...) })
	}
	// Each message takes as many elements as fit, and the rest goes into the next message.
	for len(list) > 0 {
		m.message(typ, flags, func() {
			m.text(unix.NFTA_SET_ELEM_LIST_TABLE, engine.TableName)
			m.text(unix.NFTA_SET_ELEM_LIST_SET, set)
			m.nest(unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				// Twice the longest element is left free, so that the attribute never reaches the 16 bits of its
				// length.
				for start := len(m.buf); len(list) > 0 && len(m.buf)-start < math.MaxUint16-2*longest; list = list[1:] {
					m.nest(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func() {
						key(unix.NFTA_SET_ELEM_KEY, list[0].key)
						if list[0].keyEnd != nil {
							key(keyEnd, list[0].keyEnd)
						}
						if list[0].isEnd {
							m.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
						}
					})
				}
			})
		})
	}
}
