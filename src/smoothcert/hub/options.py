"""Options of `push` and `pull`."""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from smoothcert.config.base import Config
from smoothcert.config.fields import Local, Radii

DATASETS = "datasets/"
"""What stands before the name of a dataset repository."""

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(f"(?:{DATASETS})?(?:{_PART}/)?{_PART}")


def _check_repository(name: str) -> str:
    bare = name.removeprefix(DATASETS)
    if not _NAME.fullmatch(name) or "--" in bare or ".." in bare or bare.endswith(".git"):
        raise ValueError(f"must be USER/NAME, or datasets/USER/NAME for a store, of letters, digits, '-', '_' and '.' "
                         f"(none of them doubled or last), got {name!r}")
    return name


Repository = Annotated[str, AfterValidator(_check_repository)]


class HubConfig(Config):
    """Options that `push` and `pull` share. The token is that of HF_TOKEN or of `hf auth login`, never an option."""

    @property
    def bare_repo(self) -> str:
        """The repository's name without `datasets/`."""
        return self.repo.removeprefix(DATASETS)

    @property
    def names_dataset(self) -> bool:
        """True where the name is that of a dataset repository."""
        return self.repo.startswith(DATASETS)

    repo: Repository


class PushConfig(HubConfig):
    """Options of `smoothcert push`."""

    folder: Local = Field(description="model directory or store", json_schema_extra={"argument": "DIR"})
    repo: Repository = Field(description="repository on the hub, USER/NAME; it is created where there is none",
                             json_schema_extra={"argument": "REPO"})
    certificates: Local | None = Field(
        None, description="certify store of this model, to go into the repository and its card (default: the folder "
                          "certificates of the model directory, where it has one)",
        json_schema_extra={"metavar": "STORE"})
    radii: Radii | None = Field(None, description="radii of the card, in the data's units, such as 0.5,1 or 64/255 "
                                                  "(default: those that the run decided, else evenly spaced)")
    license: str | None = Field(None, description="licence of the repository, as the hub names it, such as mit")
    private: bool = Field(False, description="create the repository as a private one")
    revision: str | None = Field(None, description="branch to push to; it must exist (default: main)")
    checkpoints: bool = Field(False, description="also push the weights of the last epoch")
    trust: bool = Field(False, description="run the code that the model directory names, to compare the model with "
                                           "its certificates")

    def _contradictions(self) -> Iterator[str]:
        if self.names_dataset and self.certificates is not None:
            yield f"certificates go beside a model: {self.repo} is a dataset repository, which holds one store"


class PullConfig(HubConfig):
    """Options of `smoothcert pull`."""

    repo: Repository = Field(description="repository on the hub: USER/NAME, a model's or else a store's; "
                                         "datasets/USER/NAME is a store's", json_schema_extra={"argument": "REPO"})
    revision: str | None = Field(None, description="branch, tag or commit (default: main)")
    out: Local = Field(description="new folder")
