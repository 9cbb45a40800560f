"""The network behind a store in words: which one it is, and in which arithmetic and runtime it was certified."""

from typing import Any

from smoothcert.checks import one_line
from smoothcert.store.store import Store


def describe_network(store: Store) -> str:
    """Return which network the answers of a store are of: its name, hash and arithmetic; "" where it is not told.

    A network of integers and one in reduced precision are classifiers of their own, and so are those of different
    runtimes where the runtime decides their answers.
    """
    identity = store.identity
    if identity.model_or_none is None:
        return ""
    model = identity.model
    known = one_line(f"{store.provenance.model or 'a network'} ({model.by} {(model.sha256 or model.id or '')[:12]})")
    return f"{known}, {describe_arithmetic(store)}"


def describe_arithmetic(store: Store) -> str:
    """Return the arithmetic that a store's network was certified in, and the runtime where it is part of that; "" of
    certificates composed of several networks'."""
    identity = store.identity
    if identity.routed_from is not None:
        return ""
    if (runtime := _runtime(identity.model.raw)) is not None:
        return one_line(f"quantised to integers, by {runtime}")
    precision = identity.precision or "float32"
    kept = identity.raw.get("input_dtype")
    words = precision if kept is None else f"{precision} (weights of {kept})"
    if precision == "float32":
        return one_line(words)
    by = _runtime(identity.raw) or f"engine {identity.engine or '?'}"
    return one_line(f"{words}, by {by}")


def transfer_notes(store: Store) -> tuple[str, ...]:
    """Return a note that certificates were transferred, and from which network; none where they were not."""
    told = store.identity.transferred_from
    if told is None:
        return ()
    name = store.provenance.raw.get("original") or "another network"
    return (one_line(f"transferred from the certificates of {name} ({told.model.by} "
                     f"{(told.model.sha256 or told.model.id or '')[:12]}, {told.precision or 'float32'}) by noisy "
                     f"copies that both networks judged; n is their number"),)


def _runtime(raw: dict[str, Any]) -> str | None:
    """Return the runtime that an identity names, with its version and instructions; None where it names none."""
    runtime = raw.get("runtime")
    parts = list(runtime.values()) if isinstance(runtime, dict) else [] if runtime is None else [runtime]
    words = [str(part) for part in parts if isinstance(part, str | int | float) and str(part)]
    return None if not words else " ".join(words[:2]) + (f" on {' '.join(words[2:])}" if words[2:] else "")
