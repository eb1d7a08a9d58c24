package spelling

import "strings"

// Nearest returns the name that a misspelled name most likely means, or "" if none of the names is similar.
// Names are similar if a third of their letters or fewer differ, if they differ in case only, or if one ends with the other,
// as podSelector ends with selector. The first of equally similar names wins.
func Nearest(wrong string, names []string) string {
	best, least := "", 0
	for _, name := range names {
		d := distance(strings.ToLower(wrong), strings.ToLower(name))
		// A name that contains the other is a word too short or too long.
		isPart := min(len(wrong), len(name)) >= 4 && (hasSuffixFold(name, wrong) || hasSuffixFold(wrong, name))
		if d > max(1, max(len(wrong), len(name))/3) && !isPart {
			continue
		}
		if best == "" || d < least {
			best, least = name, d
		}
	}
	return best
}

// hasSuffixFold reports whether a text ends with another text, in any case.
func hasSuffixFold(text, suffix string) bool {
	return strings.HasSuffix(strings.ToLower(text), strings.ToLower(suffix))
}

// distance returns the number of letters to insert, delete, replace or exchange with their neighbor, to turn a into b. It
// counts bytes, since the names are ASCII.
func distance(a, b string) int {
	// rows[i][j] is the distance of the first i bytes of a and the first j bytes of b.
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			rows[i][j] = min(replace, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
