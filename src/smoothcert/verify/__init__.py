"""A store checked end to end, and drawn again."""
