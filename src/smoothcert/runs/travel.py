"""Objects that options hold, on their way to other processes: refused before any work where they cannot get there."""

import io
import pickle
import sys
from importlib import import_module
from typing import Any

from smoothcert.config.sampling import RunConfig
from smoothcert.errors import InputError, MissingExtraError


def check_objects_travel(config: RunConfig) -> None:
    """Raise InputError for an object among the options that the processes of a run could not be given."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if value is None or isinstance(value, str | int | float):
            continue
        try:
            _write(value, config.cluster is not None)
        except Exception as error:
            asked = "cluster" if config.cluster else "workers"
            raise InputError(f"{asked}: the {name} that was given, of type {type(value).__qualname__}, cannot be sent "
                             f"to other processes ({error}): define it in a file that can be imported, or leave "
                             f"{asked} out") from error


def _write(value: Any, in_cluster: bool) -> None:
    """Pickle an object as it will be sent: Ray sends code as well, other processes import it."""
    if in_cluster:
        try:
            cloudpickle: Any = import_module("ray.cloudpickle")
        except ImportError as error:
            raise MissingExtraError("ray", "ray", "a cluster") from error
        cloudpickle.dumps(value)
    else:
        _Importable(io.BytesIO()).dump(value)


class _Importable(pickle.Pickler):
    """Refuses classes and functions that another process could not import: those of a notebook or a prompt."""

    def reducer_override(self, value: Any, /) -> Any:
        local = isinstance(value, type) or hasattr(value, "__code__")
        if local and value.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
            raise pickle.PicklingError(f"{value.__qualname__} is defined in a notebook or at a prompt, from where they "
                                       f"cannot import it")
        return NotImplemented
