"""Small stand-ins for the packages of loggers, with the calls that are made of them."""

import itertools
from types import ModuleType, SimpleNamespace
from typing import Any


def wandb(**how: Any) -> ModuleType:
    """A module whose `runs` are by id, each {name, project, logged, finished}."""
    module = ModuleType("wandb")
    runs: dict[str, dict[str, Any]] = {}
    numbers = itertools.count()

    def init(*, project: str, name: str, resume: str, id: str | None) -> SimpleNamespace:
        if how.get("fails"):
            raise ConnectionError("no network")
        assert resume == "allow"
        number = id or f"run{next(numbers)}"
        run = runs.setdefault(number, {"project": project, "name": name, "logged": [], "finished": 0, "by": None})

        def define_metric(pattern: str, *, step_metric: str) -> None:
            run["by"] = (pattern, step_metric)

        def finish() -> None:
            run["finished"] += 1

        return SimpleNamespace(id=number, log=run["logged"].append, define_metric=define_metric, finish=finish)

    module.init, module.runs = init, runs  # type: ignore[attr-defined]
    return module


def mlflow() -> ModuleType:
    """A module whose `runs` are by id, each {experiment, name, metrics, status}."""
    module = ModuleType("mlflow")
    runs: dict[str, dict[str, Any]] = {}
    experiments: dict[str, str] = {}

    class MlflowClient:
        def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
            return SimpleNamespace(experiment_id=experiments[name]) if name in experiments else None

        def create_experiment(self, name: str) -> str:
            experiments[name] = str(len(experiments))
            return experiments[name]

        def create_run(self, experiment_id: str, *, run_name: str) -> SimpleNamespace:
            number = f"run{len(runs)}"
            runs[number] = {"experiment": experiment_id, "name": run_name, "metrics": [], "status": "RUNNING"}
            return SimpleNamespace(info=SimpleNamespace(run_id=number))

        def log_metric(self, run_id: str, key: str, value: float, *, step: int) -> None:
            runs[run_id]["metrics"].append((step, key, value))

        def set_terminated(self, run_id: str) -> None:
            runs[run_id]["status"] = "FINISHED"

    module.MlflowClient, module.runs, module.experiments = MlflowClient, runs, experiments  # type: ignore[attr-defined]
    return module
