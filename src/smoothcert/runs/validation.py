"""What pydantic finds wrong with the content of a file, in words."""

from pydantic import ValidationError


def listed(what: str, error: ValidationError) -> str:
    """`what` is wrong, and a line for each of the first ten problems: field, reason, and what was got."""
    problems = [f"  - {'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}, got {e['input']!r:.80}"
                for e in error.errors()[:10]]
    return "\n".join([f"{what}:", *problems])
