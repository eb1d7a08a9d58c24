package informers

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

// inUTF8 returns the text of a file in UTF-8. A file that starts with the byte order mark of UTF-16 is converted: PowerShell 5 writes
// UTF-16 for "kubectl get … > FILE". Without the conversion, the file would have a single document, and its other objects would be lost.
func inUTF8(data []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return data
	}
	// The mark is left out. A last byte without its pair is left out too.
	units := make([]uint16, len(data)/2-1)
	for i := range units {
		units[i] = order.Uint16(data[2+2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}
