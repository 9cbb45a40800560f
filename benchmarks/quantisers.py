"""Three quantisers compared, as a section of RESULTS.md: speed, answers under noise, and where their files run.

    OMP_NUM_THREADS=1 python benchmarks/quantisers.py MODEL...

MODEL is a model directory, or the name of an untrained network for its speed alone. nncf and torchao are no
dependencies: install them into an environment of their own (pip install -e '.[onnx,openvino]' nncf torchao). One
thread; medians of interleaved passes. Every quantiser gets the same folded network, the same noisy images, symmetric
weights by channel and 7 bits for them.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from goals import write_results
from pages import read_sections, section, table

from smoothcert.classifiers.folder import read_network
from smoothcert.data import load_data, select_indices
from smoothcert.models import build_model
from smoothcert.noise import build_noise
from smoothcert.quantisation.export import export_network
from smoothcert.quantisation.quantise import draw_noisy, quantise_graph
from smoothcert.smoothing.folding import fold

Run = Callable[[np.ndarray], np.ndarray]
ROUNDS, TRIED = 25, 1000


def onnxruntime_run(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {session.get_inputs()[0].name: rows})[0]


def openvino_run(path: Path, shape: tuple[int, ...]) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    request = core.compile_model(model, "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1", "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()

    def run(rows: np.ndarray) -> np.ndarray:
        request.infer([rows])
        return request.get_output_tensor(0).data.copy()

    return run


def by_nncf(source: Any, noisy: np.ndarray, name: str | None) -> Any:
    """Return a model of OpenVINO, or of ONNX where the input has a name, quantised by NNCF."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    batches = np.array_split(noisy, max(len(noisy) // 32, 1))
    images = nncf.Dataset(batches, lambda rows: [rows] if name is None else {name: rows})
    return nncf.quantize(source, images, subset_size=len(batches), advanced_parameters=AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE))


def by_torchao(network: torch.nn.Module, noisy: np.ndarray, shape: tuple[int, ...]) -> Run:
    """Return torchao's pt2e network for the x86 backend of Inductor, compiled."""
    import torch._inductor.config
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    torch._inductor.config.freezing = True  # without it, the pass that makes integers of it fails
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=True))
    prepared = prepare_pt2e(torch.export.export(network, (torch.zeros(*shape),)).module(), quantizer)
    with torch.no_grad():
        for begin in range(0, len(noisy) - shape[0] + 1, shape[0]):
            prepared(torch.from_numpy(noisy[begin : begin + shape[0]]))
        compiled = torch.compile(lower_pt2e_quantized_to_x86(convert_pt2e(prepared), (torch.zeros(*shape),)))
        compiled(torch.zeros(*shape))

    def run(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return compiled(torch.from_numpy(rows)).numpy()

    return run


def contenders(network: torch.nn.Module, noisy: np.ndarray, shape: tuple[int, ...], place: Path) -> dict[str, Run]:
    """Return a forward pass for each quantiser and runtime, and say on standard error what fails."""
    import openvino

    folded, runs = fold(network.eval()), dict[str, Run]()
    graph = export_network(folded, shape[1:], "the network")
    image, source, ours = graph.graph.input[0].name, place / "float.onnx", place / "ours.onnx"
    onnx.save(graph, source)

    def add(name: str, make: Callable[[], dict[str, Run]]) -> None:
        try:
            runs.update({f"{name}, {runtime}": run for runtime, run in make().items()})
        except Exception as error:  # each library raises its own
            print(f"{name} fails: {type(error).__name__}: {str(error).splitlines()[0]:.200}", file=sys.stderr)

    def in_both(path: Path) -> dict[str, Run]:
        return {"ONNX Runtime": onnxruntime_run(path), "OpenVINO": openvino_run(path, shape)}

    def by_onnxruntime() -> dict[str, Run]:
        quantise_graph(graph, noisy, ours)
        return in_both(ours)

    def nncf_file() -> dict[str, Run]:
        onnx.save(by_nncf(onnx.load(source), noisy, image), place / "nncf.onnx")
        return in_both(place / "nncf.onnx")

    def nncf_ir() -> dict[str, Run]:
        openvino.save_model(by_nncf(openvino.Core().read_model(source), noisy, None), place / "nncf.xml")
        return {"OpenVINO": openvino_run(place / "nncf.xml", shape)}

    add("float32", lambda: in_both(source))
    add("onnxruntime.quantization", by_onnxruntime)
    add("NNCF, ONNX", nncf_file)
    add("NNCF, OpenVINO IR", nncf_ir)
    add("torchao pt2e", lambda: {"Inductor": by_torchao(folded, noisy, shape)})
    return runs


def answers(run: Run, rows: np.ndarray, size: int) -> np.ndarray:
    """Return the classes of rows, in batches of exactly `size`."""
    filled = np.concatenate([rows, rows[: -len(rows) % size]])
    return np.concatenate([run(filled[i : i + size]) for i in range(0, len(filled), size)])[: len(rows)].argmax(axis=1)


def compare(model: str, images: int) -> dict[str, list[str]]:
    """Return the cells of one network for each quantiser and runtime; the first entry is the network's head."""
    torch.manual_seed(0)
    if Path(model).is_dir():
        network, card = read_network(Path(model))
        name, spec, sigma = card.model, str(card.data["data"]), card.sigma or 0.25
    else:
        network, name, spec, sigma = build_model(model, (3, 32, 32), 10), f"{model}, untrained", "cifar10", 0.25
    train, test = load_data(spec, "train"), load_data(spec, "test")
    noise = build_noise("grid", sigma, train.levels)
    size = 128 if train.shape[0] == 1 else 32
    noisy = draw_noisy(train, select_indices(len(train), max_images=images), noise, 0)
    chosen = select_indices(len(test), max_images=TRIED)
    rows, labels = draw_noisy(test, chosen, noise, 0), test.labels[chosen]
    with tempfile.TemporaryDirectory() as place:
        runs = contenders(network, noisy, (size, *train.shape), Path(place))
        batch, seconds = np.ascontiguousarray(rows[:size]), {key: list[float]() for key in runs}
        for _ in range(ROUNDS):
            for key, run in runs.items():
                started = time.perf_counter()
                run(batch)
                seconds[key].append(time.perf_counter() - started)
        found = {key: answers(run, rows, size) for key, run in runs.items()}
    expected, trained = found["float32, ONNX Runtime"], Path(model).is_dir()
    cells = {"": [f"{name}, sigma {sigma:g}, batch {size}: us"] + ["float32's class, %", "right, %"] * trained}
    for key, classes in found.items():
        shares = [f"{100 * (classes == expected).mean():.1f}", f"{100 * (classes == labels).mean():.1f}"] * trained
        cells[key] = [f"{np.median(seconds[key]) / size * 1e6:,.0f}", *shares]
    return cells


def main(models: list[str], images: int) -> None:
    columns = [compare(model, images) for model in models]
    keys = dict.fromkeys(key for column in columns for key in column if key)
    lines = table(["quantiser, runtime", *(head for column in columns for head in column[""])],
                  [[key, *(cell for column in columns for cell in column.get(key, ["fails"] + [""] * (
                      len(column[""]) - 1)))] for key in keys])
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "nncf", "torchao"))
    lines.append(f"A batch's time divided by its rows, medians of {ROUNDS} interleaved passes; answers to {TRIED:,} "
                 f"noisy test images. The same folded network, {images} noisy calibration images, symmetric weights by "
                 f"channel of 7 bits (torchao: activations of 7 bits). {versions}.")
    found = section("Quantisers: microseconds a sample, one thread", lines, {})
    write_results({**read_sections(), "quantisers": found})
    print(found.text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare three quantisers.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=int, default=512)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    main(given.models, given.images)
