"""Options of `smoothcert selftest`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from smoothcert.checks import check_known
from smoothcert.config.base import MachineConfig
from smoothcert.config.fields import Count, NoiseFormat, NoiseKind, Seed


def _engine(name: str) -> str:
    from smoothcert.smoothing.engines import ENGINES

    return check_known("engine", name, ("all", *ENGINES))


class SelftestConfig(MachineConfig):
    """Options of `smoothcert selftest`."""

    engine: Annotated[str, AfterValidator(_engine)] = Field(
        "all", description="plain, eager, compile, onnxruntime, openvino or mnn, or all that are installed")
    precision: Literal["float32", "tf32", "bf16", "fp16"] = Field(
        "float32", description="arithmetic of the networks, as for certify: float32, tf32, bf16 or fp16")
    noise: NoiseKind = Field("grid", description="noise kind, as for certify: grid, gaussian or sound")
    noise_format: NoiseFormat = Field("auto", description="named random numbers, as for certify")
    batch_size: Count | None = Field(None, description="samples per forward pass, as for certify")
    seed: Seed | None = Field(None, description="seed of all draws, in [0, 2^128) (default: drawn, and told)")
    quick: bool = Field(False, description="fewer samples: seconds, and blind to smaller defects")
    out: Path | None = Field(None, description="also write the result there, as JSON, for report --selftest")
