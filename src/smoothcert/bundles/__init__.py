"""Evidence of a run in one folder or file, in the formats that customers, auditors and build servers already read."""
