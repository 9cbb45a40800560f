"""Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from smoothcert.io.paths import Place
from smoothcert.loggers.protocol import import_library, note_name, recall_name


class WeightsAndBiases:
    """A run of a project of Weights & Biases; a resumed run goes on in the same one."""

    def __init__(self, project: str, run: Place) -> None:
        self._library = import_library("wandb")
        self._project, self._folder = project, run
        self._run: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._run is None:
            key = f"wandb:{self._project}"
            self._run = self._library.init(project=self._project, name=self._folder.name, resume="allow",
                                           id=recall_name(self._folder, key))
            note_name(self._folder, key, self._run.id)
            self._run.define_metric("*", step_metric="step")  # its own steps count calls, also over a resume
        self._run.log({**values, "step": step})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
