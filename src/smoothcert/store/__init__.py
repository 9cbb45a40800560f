"""Stores of records: what a run left on disk, from which every certificate can be recomputed without torch."""
