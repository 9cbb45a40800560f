"""Parts by name: smoothcert's own, those that installed packages register, and those of users' own code."""

from smoothcert.parts.code import known_arguments, names_code
from smoothcert.parts.registry import Origin, Registry, code_of, missing_members

__all__ = ["Origin", "Registry", "code_of", "known_arguments", "missing_members", "names_code"]
