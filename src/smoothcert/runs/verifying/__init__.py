"""What `verify` checks of a store: its files, its records, its settings, and records drawn again."""
