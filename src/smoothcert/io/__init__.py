"""Reads that are bounded, writes that are whole or not at all, and the places that both can be."""
