"""Recipes: the runs that reproduce a table of a paper, and the figures that the paper printed.

A recipe is a YAML file of steps, each a verb with its options; rows, each with its parameters and expected figures; and
scales, which change options for another budget. A value `$row.NAME` stands for a row's parameter and `$step.NAME` for
the folder of an earlier step. Only whole values are substituted.
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
from smoothcert.progress import Progress

FOLDER = Path(__file__).parent
"""The folder of the recipes that come with the package."""

Options = dict[str, Any]


@dataclass(frozen=True)
class Verb:
    """A kind of step. It is imported when it is used, because most verbs need torch.

    Attributes:
        config: the class of its options, as module:name.
        function: the function that runs it, as module:name.
        marker: the file in its folder whose `complete` is true once it has finished.
        measures: true where its results go into the table.
    """

    config: str
    function: str
    marker: str = "manifest.json"
    measures: bool = True

    def config_class(self) -> type[Config]:
        """Return the class of its options."""
        return _load(self.config)

    def run(self, config: Config, progress: Progress | None) -> None:
        """Run it."""
        _load(self.function)(config, progress)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


VERBS = {
    "train": Verb("smoothcert.training.options:TrainConfig", "smoothcert.training.train:train", marker="model.json",
                  measures=False),
    "quantise": Verb("smoothcert.quantisation.options:QuantiseConfig", "smoothcert.quantisation.quantise:quantise",
                     marker="model.json", measures=False),
    "certify": Verb("smoothcert.runs.options:CertifyConfig", "smoothcert.runs.certify:certify"),
    "predict": Verb("smoothcert.runs.options:PredictConfig", "smoothcert.runs.certify:predict"),
    "attack": Verb("smoothcert.runs.options:AttackConfig", "smoothcert.runs.attack:attack"),
    "distributional": Verb("smoothcert.runs.options:DistributionalConfig",
                           "smoothcert.runs.distributional:distributional"),
    "recertify": Verb("smoothcert.recipes.options:RecertifyConfig", "smoothcert.recipes.run:recertify_step"),
}
MACHINE = ("out", "data_dir", "device", "threads", "workers", "cluster")
"""Options that the command line gives to every step that takes them; a recipe cannot."""


class RecipeStep(Config):
    """One run of a verb."""

    name: str = Field(description="name for other steps and for expected figures")
    verb: str = Field(description=", ".join(VERBS))
    options: Options = Field(default_factory=dict, description="options of the verb")


class Expected(Config):
    """Figures that the paper printed for one step, as fractions."""

    accuracy: dict[Real, Real] = Field(default_factory=dict,
                                       description="by radius (certify) or by eps (attack); 0 is clean accuracy")
    changed: dict[Real, Real] = Field(default_factory=dict,
                                      description="answers that an attack changed, by multiple of the radius")
    acr: Real | None = Field(None, description="average certified radius")
    abstained: Real | None = Field(None, description="fraction of abstentions")


class Row(Config):
    """One row of the table."""

    name: str = Field(description="name on the command line")
    parameters: Options = Field(default_factory=dict, description="values of $row.NAME")
    expected: dict[str, Expected] = Field(default_factory=dict, description="printed figures, by step")


class BestOfRows(Config):
    """A row of the paper that shows, at each radius, the best of several rows."""

    name: str = Field(description="name in the table")
    step: str = Field(description="the step whose accuracies are compared")
    rows: tuple[str, ...] = Field(description="the rows to choose from")
    accuracy: dict[Real, Real] = Field(description="printed fraction by radius")


class Scale(Config):
    """A budget: it changes parameters of all rows, then those of single rows, and options of steps."""

    about: str = Field(description="the time it takes, and how it differs from the paper")
    parameters: Options = Field(default_factory=dict, description="parameters of all rows")
    rows: dict[str, Options] = Field(default_factory=dict, description="parameters by row")
    steps: dict[str, Options] = Field(default_factory=dict, description="options by step")


class Recipe(Config):
    """The content of a recipe's file."""

    name: str = Field(description="name on the command line")
    title: str = Field(description="one line on what is reproduced")
    source: str = Field(description="the paper, table or figure")
    notes: str = Field("", description="what the paper leaves open, and where the recipe differs")
    parameters: Options = Field(default_factory=dict, description="parameters of rows that do not give their own")
    steps: tuple[RecipeStep, ...] = Field(description="the runs, in order")
    rows: tuple[Row, ...] = Field(description="the rows of the table")
    best: tuple[BestOfRows, ...] = Field((), description="rows that show the best of other rows")
    scales: dict[Literal["smoke", "cpu", "gpu", "paper"], Scale] = Field(description="budgets", min_length=1)

    @classmethod
    def _explain(cls, error: dict[str, Any]) -> list[str]:
        if error["type"] == "missing":
            return [f"{'.'.join(map(str, error['loc']))}: is required"]
        return super()._explain(error)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe by its name, or from a file that ends in .yaml or .yml.

    Raises:
        UnknownNameError: no such recipe. FileError: the file cannot be read. ConfigError: all mistakes in it.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{check_known('recipe', name, recipe_names())}.yaml"
    if not path.is_file():
        raise FileError(f"there is no recipe {path}")
    return Recipe.parse(read_yaml(path), str(path))
