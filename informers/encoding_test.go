package informers

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf16"
)

// TestEncodings reads manifests as editors and shells of Windows write them: each form has all objects.
func TestEncodings(t *testing.T) {
	const text = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {x: 'ü😀'}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n"
	inUTF16 := func(order binary.AppendByteOrder) string {
		var data []byte
		for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
			data = order.AppendUint16(data, unit)
		}
		return string(data)
	}
	for name, data := range map[string]string{
		"UTF-8":               text,
		"CRLF":                strings.ReplaceAll(text, "\n", "\r\n"),
		"byte order mark":     "\ufeff" + strings.ReplaceAll(text, "\n", "\r\n"),
		"UTF-16LE":            inUTF16(binary.LittleEndian),
		"UTF-16BE":            inUTF16(binary.BigEndian),
		"UTF-16, odd at end":  inUTF16(binary.LittleEndian) + "\n",
		"UTF-16 without text": "\xff\xfe",
	} {
		m, err := Input{Paths: []string{"-"}, Stdin: strings.NewReader(data)}.Read(t.Context())
		want := 2
		if len(data) == 2 {
			want = 0
		}
		if err != nil || len(m) != want {
			t.Errorf("%s: %d objects, %v", name, len(m), err)
			continue
		}
		if want > 0 && m[0].object.GetAnnotations()["x"] != "ü😀" {
			t.Errorf("%s: annotation %q", name, m[0].object.GetAnnotations()["x"])
		}
	}
}

// TestPlainPath gives plainPath the errors of os.Stat on Linux and on Windows.
func TestPlainPath(t *testing.T) {
	for _, op := range []string{"stat", "GetFileAttributesEx", "CreateFile"} {
		err := plainPath(fmt.Errorf("x: %w", &fs.PathError{Op: op, Path: `C:\nowhere`, Err: fs.ErrNotExist}))
		if got := err.Error(); got != `C:\nowhere: file does not exist` {
			t.Errorf("%s: %s", op, got)
		}
	}
}
