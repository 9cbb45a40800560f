"""Recipes: what to train, certify and attack to get a table of a paper, beside the figures that the paper printed.

A recipe is a YAML file: steps, each a verb with its options; rows, each with its parameters and expected figures; and
scales, which say what a smaller budget changes. A value `$row.NAME` stands for a row's parameter and `$step.NAME` for
the folder of an earlier step; nothing else is substituted, and only whole values are.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from smoothcert.checks import check_known
from smoothcert.config.base import Config, read_yaml
from smoothcert.config.fields import Real
from smoothcert.errors import FileError

FOLDER = Path(__file__).parent
"""Where the recipes that come with the package lie."""

Options = dict[str, Any]


@dataclass(frozen=True)
class Verb:
    """A verb that a step can run.

    Attributes:
        config, function: its configuration class and the function that runs it, as module:name in this package, so that
            nothing is imported before it is needed.
        leaves: a file whose `complete` says that a run has finished.
        measures: whether it leaves a store with figures.
    """

    config: str
    function: str
    leaves: str = "manifest.json"
    measures: bool = True

    def configuration(self) -> type[Config]:
        return _load(self.config)

    def run(self, config: Config, progress: Any) -> None:
        _load(self.function)(config, progress)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"smoothcert.{module}"), name)


VERBS = {
    "train": Verb("training.options:TrainConfig", "training.train:train", leaves="model.json", measures=False),
    "certify": Verb("runs.options:CertifyConfig", "runs.certify:certify"),
    "predict": Verb("runs.options:PredictConfig", "runs.certify:predict"),
    "attack": Verb("runs.attack_options:AttackConfig", "runs.attack:attack"),
    "distributional": Verb("runs.distributional_options:DistributionalConfig", "runs.distributional:distributional"),
    "recertify": Verb("recipes.options:RecertifyConfig", "recipes.run:recertify_step"),
}
MACHINE = ("out", "data_dir", "device", "threads", "workers", "cluster")
"""Options that the command line gives to every step that takes them; never a recipe's."""


class Step(Config):
    """One run of a verb."""

    name: str = Field(description="how other steps and expected figures call it")
    verb: str = Field(description=", ".join(VERBS))
    options: Options = Field(default_factory=dict, description="options of the verb")


class Expected(Config):
    """Printed figures of one step, as fractions."""

    accuracy: dict[Real, Real] = Field(default_factory=dict,
                                         description="by radius (certify) or by eps (attack); 0 is clean")
    changed: dict[Real, Real] = Field(default_factory=dict,
                                        description="answers that an attack changed, by multiple of the radius")
    acr: Real | None = Field(None, description="average certified radius")
    abstained: Real | None = Field(None, description="fraction of abstentions")


class Row(Config):
    """One line of the table."""

    name: str = Field(description="how the command line calls it")
    parameters: Options = Field(default_factory=dict, description="what $row.NAME stands for")
    expected: dict[str, Expected] = Field(default_factory=dict, description="printed figures, by step")


class Best(Config):
    """A line of the paper that takes, at each radius, the best of several rows."""

    name: str = Field(description="how the table calls it")
    step: str = Field(description="the step whose accuracies are compared")
    rows: tuple[str, ...] = Field(description="the rows it chooses from")
    accuracy: dict[Real, Real] = Field(description="printed fraction by radius")


class Scale(Config):
    """What a budget changes: parameters of all rows, then those of single rows, and options of steps."""

    about: str = Field(description="what it takes, and what is left of the paper")
    parameters: Options = Field(default_factory=dict, description="parameters of all rows")
    rows: dict[str, Options] = Field(default_factory=dict, description="parameters by row")
    steps: dict[str, Options] = Field(default_factory=dict, description="options by step")


class Recipe(Config):
    """The content of a recipe's file."""

    name: str = Field(description="how the command line calls it")
    title: str = Field(description="a line that says what is reproduced")
    source: str = Field(description="the paper, table or figure")
    notes: str = Field("", description="what the paper leaves open, and where the recipe differs")
    parameters: Options = Field(default_factory=dict, description="parameters of rows that do not give their own")
    steps: tuple[Step, ...] = Field(description="what to run, in order")
    rows: tuple[Row, ...] = Field(description="the lines of the table")
    best: tuple[Best, ...] = Field((), description="lines that take the best of rows")
    scales: dict[Literal["smoke", "cpu", "gpu", "paper"], Scale] = Field(description="budgets", min_length=1)

    @classmethod
    def _explain(cls, error: dict[str, Any]) -> list[str]:
        if error["type"] == "missing":
            return [f"{'.'.join(map(str, error['loc']))}: is required"]
        return super()._explain(error)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """A recipe by name, or from a file: anything that ends in .yaml or .yml.

    Raises:
        UnknownNameError: no such recipe. FileError: a file that cannot be read. ConfigError: with all its problems.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{check_known('recipe', name, recipe_names())}.yaml"
    if not path.is_file():
        raise FileError(f"there is no recipe {path}")
    return Recipe.checked(read_yaml(path), str(path))
