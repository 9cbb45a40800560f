"""The base of all options: one field an option, all checked together. Each verb's own class is in its room."""
