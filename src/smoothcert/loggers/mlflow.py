"""MLflow."""

from collections.abc import Mapping
from typing import Any

from smoothcert.io.paths import Place
from smoothcert.loggers.protocol import import_library, note_name, recall_name


class MLflow:
    """A run of an experiment of MLflow, at MLFLOW_TRACKING_URI; a resumed run goes on in the same one."""

    def __init__(self, experiment: str, run: Place) -> None:
        self._library = import_library("mlflow")
        self._experiment, self._folder = experiment, run
        self._client: Any = None
        self._run: str = ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._client is None:
            self._client = self._library.MlflowClient()
            self._run = self._open_run()
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        if self._client is not None and self._run:
            self._client.set_terminated(self._run)

    def _open_run(self) -> str:
        key = f"mlflow:{self._experiment}"
        if (known := recall_name(self._folder, key)) is not None:
            return known
        found = self._client.get_experiment_by_name(self._experiment)
        number = found.experiment_id if found else self._client.create_experiment(self._experiment)
        made = self._client.create_run(number, run_name=self._folder.name).info.run_id
        note_name(self._folder, key, made)
        return made
