package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// canon is an unambiguous encoding of what a name in the kernel stands for: strings, each with its length before it,
// and lists of them, each with its number of items before it. The first string says what kind of thing it is, so that
// two kinds never encode alike.
type canon struct{ buf []byte }

func newCanon(kind string) *canon { return new(canon).text(kind) }

func (c *canon) text(s string) *canon {
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(len(s)))
	c.buf = append(c.buf, s...)
	return c
}

func (c *canon) count(n int) *canon { return c.text(strconv.Itoa(n)) }

// id is 16 hex digits of its SHA-256.
func (c *canon) id() string {
	sum := sha256.Sum256(c.buf)
	return hex.EncodeToString(sum[:8])
}

// commentMax is what nft reads back of a comment, bytes.
const commentMax = 127

// comment makes text fit for a comment in nft: printable ASCII without double quotes, and not too long.
func comment(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' {
			return '?'
		}
		return r
	}, s)
	if len(s) > commentMax {
		s = s[:commentMax-3] + "..."
	}
	return s
}
