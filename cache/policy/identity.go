package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
	"strings"
)

// Digest is a SHA-256 of a canonical encoding. Equal values have equal digests. It is an identity and a part of names.
// A cryptographic hash is used because tenants choose the values: two values with the same digest would share a chain
// or a set.
type Digest [sha256.Size]byte

// ID returns the first 16 hex digits, for names of sets and chains.
// An object that is found by such a name must be compared by its whole digest.
func (d Digest) ID() string { return hex.EncodeToString(d[:8]) }

// encoder hashes an unambiguous encoding of a value. Each string has its length before it, and each list its number of items. So
// the namespaces and names a-b, c and a, b-c have different encodings. The first string is the kind of the value, so values of
// different kinds never have the same encoding.
type encoder struct{ hash.Hash }

// newEncoder returns an encoder for a value of a kind.
func newEncoder(kind string) encoder { return encoder{sha256.New()}.text(kind) }

// text adds a string with its length.
// It returns the encoder, so that calls can be chained.
func (e encoder) text(s string) encoder {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(s)))
	e.Write(length[:]) //nolint:errcheck // a hash never fails
	e.Write([]byte(s)) //nolint:errcheck // as above
	return e
}

// count adds a number.
func (e encoder) count(n int) encoder { return e.text(strconv.Itoa(n)) }

// clone returns a copy of the encoder with its state.
func (e encoder) clone() encoder {
	c, err := e.Hash.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // SHA-256 can be cloned
	}
	return encoder{c}
}

// digest returns the hash of all that was added.
func (e encoder) digest() (d Digest) {
	e.Sum(d[:0])
	return d
}

// DigestKeys returns the digest of a list of keys.
// The order matters, so the keys should be sorted.
func DigestKeys(keys []Key) Digest {
	e := newEncoder("keys").count(len(keys))
	for _, k := range keys {
		e.text(k.Namespace).text(k.Name)
	}
	return e.digest()
}

// maxComment is the maximum length of a comment that nft can read back, in bytes.
const maxComment = 127

// comment makes a text valid as a comment in nft: printable ASCII without double quotes, and not too long.
// A text that is cut ends with three dots.
func comment(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxComment {
		s = s[:maxComment-3] + "..."
	}
	return s
}
