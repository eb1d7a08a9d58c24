package lab

import "github.com/google/nftables"

// Generation returns the generation of the nftables ruleset in the host's namespace (NFTA_GEN_ID). The kernel increments it for
// each batch that changes something. If it stays the same, nothing was written.
// A test compares the generations before and after a step that must not write.
func Generation(t TB, h *Host) uint32 {
	t.Helper()
	var id uint32
	err := h.Do(func() error {
		// The kernel counts per network namespace, so the question must come from inside.
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
