"""Models of scikit-learn in files of skops, whose loading runs no code: sklearn:FILE.skops.

A file names the types of all objects in it, and only types that are known to be harmless are made, or those that the
user trusts. Two dumps of one model never have the same bytes, so a model is known by what its file holds.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from smoothcert.errors import FileError, MissingExtraError, ModelError
from smoothcert.limits import check_unpacked_size, from_json
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, read_model_file
from smoothcert.parts.code import local_files, local_sources

HARMLESS = (
    "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)
"""Types of scikit-learn beyond those that skops trusts: plain Python, whose methods check what they compute with.

Trees and their like are not among them: a file made for the purpose lets them read beyond their memory.
"""

_BLOCK = 256
_SCHEMA = "schema.json"
_OF_A_DUMP = ("__id__", "_skops_version", "protocol")
"""Entries that another dump of the same model has otherwise."""


class SklearnClassifier:
    """A classifier of scikit-learn as one that gives a score for each class: its probabilities, else its decision
    function, else a vote for the class that it predicts. It computes in float64, as it was fitted."""

    def __init__(self, model: Any) -> None:
        self.classes_, self._model = model.classes_, model
        self._columns = _columns_of(model)

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of rows (N, D), (N, K)."""
        return _in_blocks(self._score, rows)

    def _score(self, rows: np.ndarray) -> np.ndarray:
        rows = _as_fitted(rows, self._columns)
        if hasattr(self._model, "predict_proba"):
            return self._model.predict_proba(rows)
        if hasattr(self._model, "decision_function"):
            scores = np.asarray(self._model.decision_function(rows))
            return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        return (np.asarray(self._model.predict(rows))[:, None] == np.asarray(self.classes_)).astype(np.float64)


class SklearnFunction:
    """Any other estimator of scikit-learn as a function of tensors (N, ...): what it predicts, (N, outputs)."""

    def __init__(self, model: Any) -> None:
        self._model, self._columns = model, _columns_of(model)

    def __call__(self, inputs: Any) -> np.ndarray:
        rows = inputs.reshape(len(inputs), -1).cpu().numpy()
        return _in_blocks(self._predict, rows)

    def _predict(self, rows: np.ndarray) -> np.ndarray:
        found = np.asarray(self._model.predict(_as_fitted(rows, self._columns)), dtype=np.float64)
        return found.reshape(len(rows), -1)


def load_sklearn(spec: str, path: Path, input_shape: Shape | None, trust: bool) -> LoadedModel:
    """Return the model in a file of skops.

    Args:
        trust: also make objects of types that are not known to be harmless.
    Raises:
        MissingExtraError: skops is not installed. FileError: the file is missing, damaged or another kind of file.
        ModelError: types that are not trusted, another minor version of scikit-learn, no estimator, or one for another
        number of features.
    """
    try:
        import skops.io as skops
    except ImportError as error:
        raise MissingExtraError("skops", "sklearn", f"loading {spec}") from error
    if path.suffix.lower() in (".pkl", ".pickle", ".joblib"):
        raise FileError(f"{path} is a pickle, which runs code when it is opened: write the model to a file of skops, "
                        f"skops.io.dump(model, \"{path.stem}.skops\")")
    data = read_model_file(path)
    schema, contents = _read_file(path, data)
    _check_version(path, schema)
    try:
        unknown = sorted(set(skops.get_untrusted_types(data=data)) - set(HARMLESS))
        if unknown and not trust:
            raise ModelError(f"{path} holds objects of types that are not known to be harmless in a file from others: "
                             f"{', '.join(unknown)}. If you made the file, or trust who did, give --trust (in Python, "
                             f"trust=True)")
        model = skops.loads(data, trusted=[*HARMLESS, *unknown])
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # skops passes on whatever the types raise that a damaged file names
        raise FileError(f"{path} cannot be loaded by skops: {type(error).__name__}: {error}") from error
    if not hasattr(model, "predict"):
        raise ModelError(f"{path} holds a {type(model).__name__}, which has no predict: give a fitted classifier")
    wanted, given = getattr(model, "n_features_in_", None), input_shape and int(np.prod(input_shape))
    if None not in (wanted, given) and wanted != given:
        raise ModelError(f"{path} takes {wanted} features, and the inputs have {given} (shape {input_shape}): choose "
                         f"its columns, --features")
    ready = SklearnClassifier(model) if hasattr(model, "classes_") else SklearnFunction(model)
    content = json.dumps([_digest(schema, contents, {}), _own_sources(unknown)]).encode()
    return LoadedModel(ready, spec, "sklearn", content, note=f"scikit-learn {metadata.version('scikit-learn')}, "
                                                            f"{_name_steps(model)}")


def _read_file(path: Path, data: bytes) -> tuple[Any, dict[str, bytes]]:
    """Return the schema of a file of skops, and the contents of the other files in it. Raises FileError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_unpacked_size(path, len(data), sum(member.file_size for member in archive.infolist()))
            contents = {member.filename: archive.read(member) for member in archive.infolist()}
        return from_json(contents.pop(_SCHEMA), f"{_SCHEMA} in {path}"), contents
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise FileError(f"{path} is not a file of skops, or is damaged: {error}") from None


def _check_version(path: Path, schema: Any) -> None:
    """Raise ModelError where another minor version of scikit-learn wrote the model than is installed."""
    here = metadata.version("scikit-learn")
    for there in sorted(_versions(schema)):
        if there.split(".")[:2] != here.split(".")[:2]:
            raise ModelError(f"{path} was written by scikit-learn {there}, and {here} is installed, which may read it "
                             f"as another model: install scikit-learn=={'.'.join(there.split('.')[:2])}.*, or fit and "
                             f"write the model again")


def _versions(node: Any) -> set[str]:
    """Return the versions of scikit-learn that the estimators of a schema name."""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = {version for part in parts for version in _versions(part)}
    told = node.get("_sklearn_version") if isinstance(node, dict) else None
    return found | ({str(told.get("content")).strip('"')} if isinstance(told, dict) else set())


def _digest(node: Any, contents: dict[str, bytes], known: dict[Any, str]) -> str:
    """Return a hash of a part of a schema and of the files that it names, without what is other in each dump.

    Args:
        known: the hashes of the parts so far by their ids, for parts that are the same object.
    """
    if isinstance(node, list):
        parts = [_digest(part, contents, known) for part in node]
    elif isinstance(node, dict):
        if node.get("__loader__") == "CachedNode" and node.get("__id__") in known:
            return known[node["__id__"]]
        parts = [f"{key}:{_digest(part, contents, known)}" for key, part in sorted(node.items())
                 if key not in _OF_A_DUMP]
        if node.get("__loader__") == "SetNode":
            parts = [f"set:{_digest(sorted(_digest(part, contents, known) for part in node['content']), contents, {})}"]
    elif isinstance(node, str) and node in contents:
        parts = [_array_digest(contents[node])]
    else:
        parts = [repr(node)]
    found = hashlib.sha256("\0".join([type(node).__name__, *parts]).encode()).hexdigest()
    if isinstance(node, dict) and "__id__" in node:
        known[node["__id__"]] = found
    return found


def _array_digest(content: bytes) -> str:
    """Return a hash of an array in a file, without the bytes between the fields of a record, which hold anything."""
    if not content.startswith(npy.MAGIC_PREFIX):
        return hashlib.sha256(content).hexdigest()
    array = npy.read_array(io.BytesIO(content), allow_pickle=False)
    fields = [array[name] for name in array.dtype.names] if array.dtype.names else [array]
    digest = hashlib.sha256(f"{array.dtype.names} {array.shape}".encode())
    for values in fields:
        digest.update(f"\0{values.dtype.str}".encode() + values.tobytes())
    return digest.hexdigest()


def _own_sources(types: list[str]) -> dict[str, str]:
    """Return the SHA-256 of the local files in which types are defined, by module name."""
    return local_sources([found for name in types for found in local_files(name.rpartition(".")[0])])


def _in_blocks(run: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return what `run` gives for rows (N, D), in blocks of one size: a product of matrices of another size is added up
    in another order, and a row's answer would depend on the batch in its last bits."""
    filled = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % _BLOCK, axis=0)])
    return np.concatenate([run(block) for block in np.split(filled, len(filled) // _BLOCK)])[: len(rows)]


def _columns_of(model: Any) -> list[str] | None:
    """Return the names of the columns that an estimator was fitted on, None where they had none."""
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else list(names)


def _as_fitted(rows: np.ndarray, columns: list[str] | None) -> Any:
    """Return rows in float64, in a table of named columns for an estimator that was fitted on one."""
    rows = rows.astype(np.float64)
    if columns is None:
        return rows
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise MissingExtraError("pandas", "frames", "a model that was fitted on a table of named columns") from error
    return DataFrame(rows, columns=columns)


def _name_steps(model: Any) -> str:
    steps = [step for _, step in getattr(model, "steps", [])] or [model]
    return ", ".join(type(step).__name__ for step in steps)
