package netconf

import "strings"

// longest is the length of a name from which on it is not compared, in bytes. No key is longer.
const longest = 40

// spelling is a name without what people mix up: the case of letters, '_' and '-'.
type spelling struct {
	text [longest]byte
	n    int // -1: too long to be a key
}

func spell(name string) (s spelling) {
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '_' || c == '-':
			continue
		case s.n == longest:
			return spelling{n: -1}
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		s.text[s.n] = c
		s.n++
	}
	return s
}

func (s *spelling) String() string { return string(s.text[:max(s.n, 0)]) }

// differ returns by how many letters a name differs from a key, and whether it is likely that
// the key was meant. A letter too many, one too few, another one, or two in the wrong order
// count as one.
func (s *spelling) differ(key string) (letters int, near bool) {
	k := spell(key)
	if s.n <= 0 || k.n < 0 {
		return 0, false
	}
	if most := allowed(k.n); s.n-k.n <= most && k.n-s.n <= most {
		if d := s.distance(&k); d <= most && d < s.n {
			return d, true
		}
	}
	a, b := s.String(), k.String()
	if len(a) > len(b) {
		a, b = b, a
	}
	return len(b) - len(a), len(a) >= 5 && strings.HasPrefix(b, a) // "hairpin", "bridgeName"
}

// allowed is how many letters of a key of that length may differ.
func allowed(length int) int {
	switch {
	case length <= 5:
		return 1
	case length <= 9:
		return 2
	}
	return 3
}

// distance is the edit distance with transpositions of neighbours (optimal string alignment).
func (s *spelling) distance(k *spelling) int {
	var rows [3][longest + 1]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= s.n; i++ {
		row[0] = i
		for j := 1; j <= k.n; j++ {
			change := 1
			if s.text[i-1] == k.text[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && s.text[i-1] == k.text[j-2] && s.text[i-2] == k.text[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[k.n]
}
