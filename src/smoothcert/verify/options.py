"""Options of `verify`."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from smoothcert.config.base import ReadingConfig
from smoothcert.config.fields import ClassNames, Count, DataPart, DenoiserPart, Local, ModelPart, Options, Stored
from smoothcert.config.model import ModelConfig


class VerifyConfig(ModelConfig, ReadingConfig):
    """Options of `smoothcert verify`; all but `store` are of the records to draw again."""

    store: Stored = Field(description="store to check", json_schema_extra={"argument": "STORE"})
    noise: Any = Field(None, description="noise of the run, where it is your own code: file.py:NAME or "
                                              "package.module:NAME")
    attack: Any = Field(None, description="attack of the run, likewise, for resample")
    resample: Count | None = Field(None, description="draw this many records again from their seeds, and compare; "
                                                     "needs the model and the images")
    model: ModelPart | None = Field(None, description="model of the store, in the forms of certify, for resample")
    denoiser: DenoiserPart = Field(None, description="directory of the denoiser that was named beside the model")
    walk_jump: Local | None = Field(None, description="directory of its walk's second denoiser")
    attractor: Local | None = Field(None, description="directory of its flow's second denoiser")
    front_option: Options = Field(default_factory=dict, description="option of walk-jump or attractor, KEY=VALUE "
                                                                    "(repeatable)")
    data: DataPart = Field(None, description="data set of the store, in the forms of certify (default: where the run "
                                             "found it)")
    data_dir: Local | None = Field(None, description="folder with the data sets' files (default: where the run "
                                                    "found them, else the environment variable SMOOTHCERT_DATA_DIR)")
    classes: ClassNames | None = Field(
        None, description="classes of the run, if it was given them (default: as the store has them)",
        json_schema_extra={"metavar": "FILE"})
    numeric_classes: bool = Field(False, description="numeric-classes of the run, if it was given it")
    eps_from: Stored | None = Field(None, description="certify store that an attack store took its radii from")
    adversaries: Stored | None = Field(None, description="attack store whose images a predict store is of")
    original: ModelPart | None = Field(None, description="original network of a transferred store, in the forms of "
                                                         "certify (default: the model itself), for resample")
    original_option: Options = Field(default_factory=dict, description="option of the original, as for transfer")
    original_store: Stored | None = Field(None, description="store that a transferred one was made from: its looks "
                                                            "are compared")
    batch_size: Count | None = Field(None, description="samples per forward pass; never changes results in float32 "
                                                       "(default: fits the cache)")
    threads: Count | None = Field(None, description="processor threads for torch (default: all)")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the records are drawn again: auto, cpu or cuda (default: the run's kind of device "
                            "if it is there, else the CPU, where close calls may differ)")
    workers: Count = Field(1, description="processes, one thread each (or one GPU each); never changes results")

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        given = sorted(self.model_fields_set - {"store", "resample", "noise", "original_store"})
        if self.resample is None and given:
            yield (f"{', '.join(name.replace('_', '-') for name in given)}: only of use with resample, the number of "
                   f"records to draw again")
        if self.resample is not None and self.model is None:
            yield "resample draws records again, which needs the model that they are of: give model"
