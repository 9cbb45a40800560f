"""Options of `smoothcert bundle`."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from smoothcert.config.base import Part
from smoothcert.config.fields import Local
from smoothcert.report.options import BoundConfig, RadiiConfig, Stores


class BundleConfig(RadiiConfig, BoundConfig):
    """Options of `smoothcert bundle`."""

    stores: Stores = Field(description="finished stores of any kind; METHOD=STORE says which runs are one method",
                           json_schema_extra={"argument": "STORE"})
    out: Local = Field(description="new folder, or FILE.zip", json_schema_extra={"metavar": "DIR|FILE.zip"})
    title: str = Field("", description="heading of the pages, and name of the model in its card (default: names the "
                                       "stores)")
    require: Stores = Field((), description="what has to hold, as for check; may be given several times",
                            json_schema_extra={"metavar": "REQUIREMENT", "repeatable": True})
    digest_only: bool = Field(False, description="leave the records out: of each store only its manifest, which has "
                                                 "the SHA-256 of every file of records")
    selftest: Local | None = Field(None, description="this result of `smoothcert selftest -o` (default: one is made "
                                                     "now)", json_schema_extra={"metavar": "FILE"})
    quick: bool = Field(False, description="make a selftest of fewer samples: seconds, and blind to smaller defects")
    no_selftest: bool = Field(False, description="leave the selftest out")
    noise: Any = Field(None, description="noise of the runs, where it is your own code: file.py:NAME or "
                                         "package.module:NAME")

    def _parts(self) -> Iterator[Part]:
        from smoothcert.results.requirements import parse_requirements  # brings NumPy, which --help does without

        if self.require:
            yield {"require"}, lambda: parse_requirements(self.require)

    def _contradictions(self) -> Iterator[str]:
        if (self.selftest is not None) + self.quick + self.no_selftest > 1:
            yield "selftest, quick and no-selftest are different wishes: give one of them"
        if not self.stores:
            yield "give at least one STORE"
        if self.bound != "population" and not self.require:
            yield "bound says what requirements are held against: give require, or leave bound out"
