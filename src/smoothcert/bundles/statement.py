"""An in-toto statement on the files of a bundle: test results, unsigned, to be signed by whoever vouches for them."""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from smoothcert.bundles.outcomes import BundleOutcome, summarise
from smoothcert.errors import FileError
from smoothcert.version import __version__

STATEMENT = "statement.json"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"


def write_statement(digests: Mapping[str, str], configuration: Sequence[str], outcomes: Sequence[BundleOutcome]) -> str:
    """Return the statement.

    Args:
        digests: the SHA-256 of each file of the bundle, its subjects, the manifests of the stores first.
        configuration: those of them that say what was tested.
    Raises:
        FileError: it is not what in-toto asks for.
    """
    lists = {outcome: [one.name for one in outcomes if one.outcome == outcome]
             for outcome in ("passed", "warned", "failed")}
    package = {"name": "smoothcert", "uri": f"pkg:pypi/smoothcert@{__version__}"}
    content = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [_describe(name, digest) for name, digest in digests.items()],
        "predicateType": PREDICATE,
        "predicate": {"result": summarise(outcomes),
                      "configuration": [package, *(_describe(name, digests[name]) for name in configuration)],
                      **{f"{outcome}Tests": names for outcome, names in lists.items()}},
    }
    text = json.dumps(content, indent=2) + "\n"
    check_statement(text)
    return text


def check_statement(text: str) -> None:
    """Raise FileError unless a text is an in-toto statement of test results."""
    json_format = import_module("google.protobuf.json_format")
    statement, message = (import_module(f"in_toto_attestation.v1.{name}") for name in ("statement", "statement_pb2"))
    predicate = import_module("in_toto_attestation.predicates.test_result.v0.test_result_pb2")
    try:
        read = json_format.Parse(text, message.Statement())
        statement.Statement.copy_from_pb(read).validate()
        json_format.Parse(json_format.MessageToJson(read.predicate), predicate.TestResult())
    except (ValueError, json_format.Error) as error:
        raise FileError(f"{STATEMENT} is not as in-toto has it: {error}") from None


def _describe(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}
