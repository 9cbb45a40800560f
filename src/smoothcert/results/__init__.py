"""Numbers read out of stores, as arrays and plain values; nothing is rendered, and torch is never imported."""
