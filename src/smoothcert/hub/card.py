"""The card of a repository: YAML that the hub reads, and below it the figures for people.

A README.md that lies in the folder keeps its text and its YAML; the figures stand between two marks, and only they and
what the YAML says of them are written anew.
"""

import re
from typing import Any

import yaml

from smoothcert.classifiers.card import ModelCard
from smoothcert.config.numbers import from_yaml
from smoothcert.errors import FileError
from smoothcert.hub.contents import Kind
from smoothcert.io.paths import CERTIFICATES
from smoothcert.report.model_index import describe_results
from smoothcert.report.shown import render
from smoothcert.results.base import Points
from smoothcert.results.certified import Result
from smoothcert.results.gather import put_side_by_side, read_result
from smoothcert.results.metrics import list_metrics
from smoothcert.store.store import Store

TAGS = ("smoothcert", "randomized-smoothing", "certified-robustness")

_BEGIN, _END = "<!-- figures of smoothcert -->", "<!-- end of the figures -->"
_FIGURES = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)


def write_card_text(
    kind: Kind, repo: str, model: ModelCard | None, store: Store | None, radii: tuple[float, ...] | None = None,
    license: str | None = None, own: str = "",
) -> str:
    """Return the text of README.md for a repository.

    Args:
        model: the card of its model. store: its certificates, or the records that it is of.
        radii: of the figures; None takes those that the run decided, else evenly spaced ones.
        own: the text of the README.md that lies in the folder, "" where none does.
    Raises:
        FileError: its YAML cannot be read. InputError: radii that a store does not take.
    """
    before, body = _split(own)
    name = repo.rpartition("/")[2]
    result = Result.of(store, name) if store is not None and store.kind == "certify" else None
    front: dict[str, Any] = {**before, **({"license": license} if license else {}),
                             "tags": list(dict.fromkeys([*_listed(before.get("tags")), *TAGS]))}
    if kind == "model":
        front |= {"library_name": "smoothcert", "pipeline_tag": "image-classification"} \
            if model is None or model.kind == "classifier" else {"library_name": "smoothcert"}
        if result is not None and store is not None:
            results = [describe_results(store, list_metrics(result, radii or ()))]
            front["model-index"] = [{"name": name, "results": results}]
        else:
            front.pop("model-index", None)  # figures that nothing in the repository proves
    points = Points(tuple(radii or ()))
    table = [] if store is None else [render([put_side_by_side([read_result(store, name)], points)], "markdown")]
    figures = "\n\n".join([_BEGIN, *_sentences(kind, repo, model, store), *table, _END])
    body = body or f"# {name}\n\n{figures}\n"
    text = _FIGURES.sub(lambda _: figures, body) if _FIGURES.search(body) else f"{body.rstrip()}\n\n{figures}\n"
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{text}"


def _sentences(kind: Kind, repo: str, model: ModelCard | None, store: Store | None) -> list[str]:
    if kind == "dataset" or model is None:
        command = f"smoothcert pull datasets/{repo} -o store\nsmoothcert verify store"
        return [f"Records of a run of smoothcert, kind {store.kind if store else 'unknown'}.", _console(command)]
    trained = f"trained at sigma {model.sigma:g}" if model.sigma else "trained without noise"
    if model.quantised is not None:
        trained = f"calibrated at sigma {model.sigma:g}"
    network = f"`{model.model}`" if model.quantised is None else f"`{model.quantised.original['model']}` in int8"
    told = [f"A {model.kind} for smoothcert: {network}, {model.parameters or 0:,} parameters, images of shape "
            f"{' x '.join(map(str, model.input_shape))}, {model.num_classes} classes, {trained}."]
    use = "--denoiser model" if model.kind == "denoiser" else "model"
    lines = [f"smoothcert pull {repo} -o model", f"smoothcert certify {use} -o store"]
    if store is not None:
        lines.append(f"smoothcert verify model/{CERTIFICATES}")
        told.append(f"Its certificates are in the folder `{CERTIFICATES}`, with all votes.")
    return [*told, _console("\n".join(lines))]


def _console(commands: str) -> str:
    return f"```console\n{commands}\n```"


def _split(text: str) -> tuple[dict[str, Any], str]:
    """Return the YAML and the text of a README.md."""
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    try:
        front = from_yaml(found[1])
    except yaml.YAMLError as error:
        raise FileError(f"the YAML of the folder's README.md cannot be read: {error}") from None
    if not isinstance(front, dict | None):
        raise FileError(f"the YAML of the folder's README.md must hold KEY: VALUE lines, got {type(front).__name__}")
    return front or {}, text[found.end():]


def _listed(tags: Any) -> list[Any]:
    return tags if isinstance(tags, list) else [tags] if tags else []
