"""What the options of all verbs share: one field an option, checked together. Each verb's own class is in its room."""
