package diagnostics

import "testing"

// An answer that is cut short, or is none, is refused.
func TestBody(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}": "{}",
		"HTTP/1.1 200 OK\r\nA: b\r\n\r\n[]":              "[]",
	} {
		if got, err := bodyOf([]byte(text)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, bad := range []string{
		"", "{}", "HTTP/1.0 200 OK\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}", "HTTP/1.0 200 OK\r\ncontent-length: x\r\n\r\n{}",
		"HTTP/1.0 404 Not Found\r\n\r\nno", "SSH-2.0-x y z\r\n\r\n{}", "HTTP/1.0 200\r\n\r\n{}",
	} {
		if got, err := bodyOf([]byte(bad)); err == nil {
			t.Errorf("%q is taken: %q", bad, got)
		}
	}
}
