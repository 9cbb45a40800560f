"""Samples a second of int8 and bfloat16 networks, end to end, one thread: beside float32 and the plain reference."""

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from networks import CLASSES, SIGMA, Network, network
from ours import LONG_RUN, drawing, opened
from pages import Section, section, table
from reference import BATCH
from speed import reference
from timing import Run, interleaved

from smoothcert.machine import BF16_UNITS, VNNI_UNITS, describe_processor, instruction_sets
from smoothcert.models import load_model
from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling

SAMPLES = {"lenet": (2000, 8000), "cnn": (1000, 4000), "resnet20": (1000, 2000), "resnet110": (250, 500)}
"""Samples that the reference and smoothcert draw in a round."""

ROUNDS = {"resnet110": 3}
ENGINES = ("onnxruntime", "openvino")


def main(figures: dict[str, float]) -> Section:
    rows, found = [], dict[str, float]()
    for name, (few, many) in SAMPLES.items():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contenders = {"reference": reference(network(name), few), **ours(network(name), many, Path(folder))}
            for run in contenders.values():
                run()
            rates = interleaved(contenders, ROUNDS.get(name, 5))
        rows.append([name, *(f"{rates.median(one):,.0f}" if one in rates.rounds else "" for one in CONTENDERS),
                     *(f"{rates.ratio(one, over):.2f}" if one in rates.rounds else ""
                       for over in ("reference", "float32") for one in ("int8 openvino", "bf16 openvino"))])
        found |= {f"{name} {one} over {over}": rates.ratio(one, over).median for one in rates.rounds
                  for over in ("reference", "float32") if one not in ("reference", "float32")}
    header = ["network", *CONTENDERS, "int8 over reference", "bf16 over reference", "int8 over float32",
              "bf16 over float32"]
    return section("int8 and bfloat16, samples a second, one thread", [*table(header, rows), *notes()], found)


CONTENDERS = ("reference", "float32", *(f"int8 {engine}" for engine in ENGINES), "bf16 openvino")


def ours(measured: Network, samples: int, folder: Path) -> dict[str, Run]:
    """The package with the network in each precision that the processor has units for."""
    noise = build_noise("grid", SIGMA)
    runs = {"float32": drawing(measured, opened(measured, noise), samples)}
    if VNNI_UNITS & instruction_sets():
        path = quantised(measured, folder)
        for engine in ENGINES:
            model = load_model(str(path), num_classes=CLASSES, runtime=engine).model
            integers = replace(measured, model=model)
            runs[f"int8 {engine}"] = drawing(integers, opened(integers, noise), samples)
    if BF16_UNITS & instruction_sets(onednn=True):
        how = Sampling("openvino", precision="bf16", samples=LONG_RUN)
        runs["bf16 openvino"] = drawing(measured, opened(measured, noise, how), samples)
    return runs


def quantised(measured: Network, folder: Path) -> Path:
    """The network in int8: QDQ, 7-bit weights for each channel, the last layer's output in float."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    shape = measured.image.shape
    torch.onnx.export(measured.model, (torch.zeros(2, *shape),), folder / "float.onnx", dynamo=True, verbose=False,
                      external_data=False, input_names=["images"], output_names=["logits"],
                      dynamic_shapes=({0: torch.export.Dim("batch")},))
    quant_pre_process(folder / "float.onnx", folder / "prepared.onnx", skip_symbolic_shape=True)

    class Calibration(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = noisy(measured)

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            return next(self._batches, None)

    quantization.quantize_static(
        folder / "prepared.onnx", folder / "int8.onnx", Calibration(), per_channel=True, reduce_range=True,
        weight_type=quantization.QuantType.QInt8, activation_type=quantization.QuantType.QUInt8)
    return folder / "int8.onnx"


def noisy(measured: Network) -> Iterator[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    for _ in range(4):
        copies = measured.image + SIGMA * generator.standard_normal((16, *measured.image.shape))
        yield {"images": copies.astype(np.float32)}


def notes() -> list[str]:
    return [
        f"Random weights. `reference`: the plain reference in batches of {BATCH:,}; `float32`: the package with the "
        f"engine that it takes for a long run. int8: static QDQ by onnxruntime.quantization {version('onnxruntime')}, "
        f"7-bit weights, run by ONNX Runtime and by OpenVINO {version('openvino')}; bf16: OpenVINO. Noise, forward "
        "passes, votes and counting together; medians of interleaved rounds, ratios with the least and the greatest. "
        f"Processor: {describe_processor()}. Where a column is empty, the processor has no units for it."
    ]
