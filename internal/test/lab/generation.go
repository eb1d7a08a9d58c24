package lab

import "github.com/google/nftables"

// Generation is the number to which the kernel adds one for every batch that changes something in the host's namespace. It
// fails the test when the kernel does not say it.
func Generation(t TB, h *Host) uint32 {
	t.Helper()
	var id uint32
	err := h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		g, err := c.GetGen()
		if err == nil {
			id = g.ID
		}
		return err
	})
	if err != nil {
		t.Fatalf("generation of %s: %v", h.Name, err)
	}
	return id
}
