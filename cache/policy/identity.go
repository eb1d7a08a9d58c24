package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
	"strings"
)

// Digest is a SHA-256 of a canonical encoding. Equal values have equal digests.
type Digest [sha256.Size]byte

// ID returns the 16 hex digits that stand in names of sets and chains.
func (d Digest) ID() string { return hex.EncodeToString(d[:8]) }

// encoder hashes an unambiguous encoding of the value that a name stands for: strings, each with its length before it,
// and lists, each with its number of items before it. The first string says what kind of value it is, so that values
// of two kinds never encode alike.
type encoder struct{ hash.Hash }

func newEncoder(kind string) encoder { return encoder{sha256.New()}.text(kind) }

func (e encoder) text(s string) encoder {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(s)))
	e.Write(length[:]) //nolint:errcheck // a hash never fails
	e.Write([]byte(s)) //nolint:errcheck // as above
	return e
}

func (e encoder) count(n int) encoder { return e.text(strconv.Itoa(n)) }

// clone returns an encoder that goes on from the same point. Groups of one policy share the encoding of its networks,
// so that many rules do not encode many networks each.
func (e encoder) clone() encoder {
	c, err := e.Hash.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // SHA-256 can be cloned
	}
	return encoder{c}
}

func (e encoder) digest() (d Digest) {
	e.Sum(d[:0])
	return d
}

// DigestKeys returns the digest of a list of keys.
func DigestKeys(keys []Key) Digest {
	e := newEncoder("keys").count(len(keys))
	for _, k := range keys {
		e.text(k.Namespace).text(k.Name)
	}
	return e.digest()
}

// maxComment is the length of a comment that nft reads back, bytes.
const maxComment = 127

// comment makes text fit for a comment in nft: printable ASCII without double quotes, and not too long.
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
