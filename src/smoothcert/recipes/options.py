"""Options of `reproduce`, and of the recertification that a recipe's step can ask for."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from smoothcert.config.base import Config, MachineConfig
from smoothcert.config.fields import Count, Local, Method, Probability, Stored


def _names(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class ReproduceConfig(MachineConfig):
    """Options of `smoothcert reproduce`."""

    recipe: str | None = Field(None, description="name of a recipe, or a file RECIPE.yaml (default: list them)",
                               json_schema_extra={"argument": "RECIPE"})
    row: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = Field(
        None, description="only these rows, such as gaussian,adre (default: all)")
    scale: Literal["smoke", "cpu", "gpu", "paper"] = Field(
        "cpu", description="budget: smoke (seconds, shows that it runs), cpu (minutes a row), gpu (the same with more "
                           "epochs, minutes on a GPU) or paper (its own)")
    out: Local | None = Field(None, description="folder for models, stores and the comparison; the same command "
                                                "resumes (default: reproduced/RECIPE-SCALE)")
    data_dir: Local | None = Field(None, description="folder with the data sets, which relative paths in recipes start "
                                                    "from (or set the environment variable SMOOTHCERT_DATA_DIR)")
    workers: Count | None = Field(None, description="processes that train and sample, one thread each (or one GPU "
                                                    "each) (default: one for each GPU; else training has one with all "
                                                    "threads, sampling one for each processor; four at most; 1 at "
                                                    "scale smoke; in a cluster as many as it has room for)")
    cluster: str | None = Field(None, description="sample in a Ray cluster: its address, auto or local, as for certify")
    list: bool = Field(False, description="list the recipes, or the rows and scales of the one named")


class RecertifyConfig(Config):
    """Options of a recipe's step `recertify`: another guarantee from the counts of a certify step."""

    store: Stored = Field(description="store of a certify step")
    alpha: Probability | None = Field(None, description="failure probability of each certificate (default: as stored)")
    method: Method | None = Field(None, description="two-sided, cohen or t-certify (default: as stored)")
    out: Stored = Field(description="store directory")
