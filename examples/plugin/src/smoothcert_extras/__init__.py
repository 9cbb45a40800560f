"""Parts for smoothcert, registered by the entry points in pyproject.toml."""
