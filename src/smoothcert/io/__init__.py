"""Bounded reads, writes that are whole or not at all, and the places that paths name."""
