"""The bounds of `smoothcert.io.limits`, by the name under which modules import them whose text must not change.

The text of a module that defines a network's class is part of that network's identity (`classifiers.folder.source_of`,
tests/classifiers/test_frozen.py). All other modules import from `smoothcert.io.limits`.
"""

from smoothcert.io.limits import JSON_BYTES, PIXELS, bounded_bytes, from_json, within

__all__ = ["JSON_BYTES", "PIXELS", "bounded_bytes", "from_json", "within"]
