"""Options of `reproduce`, and of the step `recertify` of a recipe."""

from typing import Literal

from pydantic import Field

from smoothcert.config.base import Config, MachineConfig
from smoothcert.config.fields import Count, Local, Method, Names, Probability, Stored


class ReproduceConfig(MachineConfig):
    """Options of `smoothcert reproduce`."""

    recipe: str | None = Field(None, description="name of a recipe, or a file RECIPE.yaml (default: list them)",
                               json_schema_extra={"argument": "RECIPE"})
    row: Names | None = Field(
        None, description="only these rows, such as gaussian,adre (default: all)")
    scale: Literal["smoke", "cpu", "gpu", "paper"] = Field(
        "cpu", description="budget: smoke (seconds, shows that it runs), cpu (minutes a row), gpu (more epochs, "
                           "minutes a row on a GPU) or paper (as in the paper)")
    out: Local | None = Field(None, description="folder for models, stores and the comparison; the same command "
                                                "resumes (default: reproduced/RECIPE-SCALE)")
    data_dir: Local | None = Field(None, description="folder with the data sets; relative paths in recipes start there "
                                                    "(or set the environment variable SMOOTHCERT_DATA_DIR)")
    workers: Count | None = Field(None, description="processes that train and sample, each with one thread or one GPU "
                                                    "(default: one for each GPU, at most four; without a GPU one to "
                                                    "train, with all threads, and one for each processor to sample, "
                                                    "at most four; 1 at scale smoke; in a cluster as many as fit)")
    cluster: str | None = Field(None, description="sample in a Ray cluster: its address, auto or local, as for certify")
    list: bool = Field(False, description="list the recipes, or the rows and scales of the recipe given")


class RecertifyConfig(Config):
    """Options of the step `recertify`: another guarantee from the counts of a certify step."""

    store: Stored = Field(description="store of a certify step")
    alpha: Probability | None = Field(None, description="failure probability of each certificate (default: as stored)")
    method: Method | None = Field(None, description="two-sided, cohen or t-certify (default: as stored)")
    out: Stored = Field(description="store directory")
