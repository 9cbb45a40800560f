"""Integer networks in files: exact products, the runtime as a part of them, and weights that saturate."""

import os
import platform
import subprocess
import sys
import warnings
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model_files import floats, save_onnx
from smoothcert import SmoothedClassifier
from smoothcert.errors import FileError, IdentityError, InputError, ModelError, ProcessorWarning
from smoothcert.machine import BF16_UNITS, instruction_sets, is_x86
from smoothcert.models import load_model
from smoothcert.models.quantised import OnnxGraph, describe_wide, is_integer, magnitudes, wide_layers
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.selftest.integers import SHAPE, IntegerNetwork
from smoothcert.smoothing.engines import runtimes
from smoothcert.smoothing.files import runtime_of

pytest.importorskip("onnxruntime")
RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.skipif(
    not find_spec("openvino"), reason="needs openvino"))]
ALL_SETS = frozenset({"sse4_1", "avx2", "avx512f", "avx512_vnni", "avx512_bf16"})


@pytest.fixture
def integers(tmp_path):
    """A file of an integer network with 7-bit weights, on images (16, 4, 4)."""
    IntegerNetwork.of_largest(64).write(tmp_path / "int8.onnx")
    return str(tmp_path / "int8.onnx")


@pytest.fixture
def wide(tmp_path):
    """The same with 8-bit weights."""
    IntegerNetwork.of_largest(126).write(tmp_path / "wide.onnx")
    return str(tmp_path / "wide.onnx")


@pytest.fixture
def digits(tmp_path):
    """A file of an integer network for the digits, quantised by onnxruntime."""
    return quantised_digits(tmp_path, "QDQ")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def quantised_digits(tmp_path, form):
    from onnxruntime import quantization

    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 1, 3, 3)), "v": rng.normal(size=(10, 512)) / 8}
    path = save_onnx(
        tmp_path / "float.onnx",
        [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["r"]),
         helper.make_node("Flatten", ["r"], ["f"]), helper.make_node("Gemm", ["f", "v"], ["y"], transB=1)],
        [floats("x", ["n", 1, 8, 8])], [floats("y", ["n", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()])

    class Calibration(quantization.CalibrationDataReader):
        batches = iter([{"x": rng.normal(0.5, 0.5, (64, 1, 8, 8)).astype(np.float32)}])

        def get_next(self):
            return next(self.batches, None)

    quantization.quantize_static(path, tmp_path / "digits.onnx", Calibration(), per_channel=True, reduce_range=True,
                                 weight_type=quantization.QuantType.QInt8,
                                 quant_format=getattr(quantization.QuantFormat, form))
    return str(tmp_path / "digits.onnx")


def configured(model, out, **options):
    return CertifyConfig.parse({"model": model, "out": out, "data": "digits", "sigma": 0.25, "n": 300, "n0": 50,
                                "seed": 0, "max_images": 2, **options})


def shards(folder):
    return [path.read_bytes() for path in sorted(folder.glob("shard-*"))]


# Counts

@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nothing_but_the_runtime_changes_a_count(digits, tmp_path, runtime):
    certify(configured(digits, tmp_path / "whole", engine=runtime))
    wanted = shards(tmp_path / "whole")
    for k, options in enumerate(({"batch_size": 1}, {"batch_size": 7}, {"batch_size": 1000, "threads": 2})):
        certify(configured(digits, tmp_path / str(k), engine=runtime, **options))
        assert shards(tmp_path / str(k)) == wanted


@pytest.mark.slow
def test_two_workers_count_as_one_process_does(digits, tmp_path):
    certify(configured(digits, tmp_path / "one"))
    certify(configured(digits, tmp_path / "two", workers=2))
    assert shards(tmp_path / "two") == shards(tmp_path / "one")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_products_are_those_of_integers_in_any_batch(integers, runtime):
    model = load_model(integers, runtime=runtime).model
    levels = np.random.default_rng(1).integers(0, 256, (300, *SHAPE))
    images = torch.from_numpy((levels / 256).astype(np.float32))
    wanted = torch.from_numpy(IntegerNetwork.of_largest(64).logits(levels)).float()
    for rows in (1, 7, 64, 300):
        found = torch.cat([model(part) for part in images[: 4 * rows].split(rows)])
        assert torch.equal(found, wanted[: len(found)])


@pytest.mark.slow
@pytest.mark.skipif(not is_x86(), reason="the variable names x86's instruction sets")
@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_instruction_sets_change_no_product_of_7_bits(limit):
    pytest.importorskip("openvino")
    code = ("from smoothcert.selftest.integers import check_products as check; "
            "print([check('openvino', largest, True).passed for largest in (64, 126)])")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "ONEDNN_MAX_CPU_ISA": limit}).stdout
    assert told.strip() == "[True, None]"  # with 8 bits it is refused


# Identity

def test_the_runtime_is_part_of_the_identity_and_of_the_resumption(digits, tmp_path, monkeypatch):
    store = certify(configured(digits, tmp_path / "store"))
    found = store.identity.model.runtime
    assert (found.name, found.instructions) == ("onnxruntime", "x86" if is_x86() else platform.machine())
    assert store.identity.engine == "onnxruntime"
    certify(configured(digits, tmp_path / "store"))
    monkeypatch.setattr(runtimes, "version_of", lambda name: "0.1")
    with pytest.raises(IdentityError, match=rf"model\.runtime\.version: stored '{found.version}', asked '0\.1'"):
        certify(configured(digits, tmp_path / "store"))


def test_a_resumed_run_takes_the_runtime_of_its_store(digits, tmp_path):
    pytest.importorskip("openvino")
    first = certify(configured(digits, tmp_path / "store", engine="openvino"))
    again = certify(configured(digits, tmp_path / "store"))
    assert (again.identity.engine, again.identity.raw) == ("openvino", first.identity.raw)
    with pytest.raises(IdentityError, match=r"model\.runtime\.name: stored 'openvino', asked 'onnxruntime'"):
        certify(configured(digits, tmp_path / "store", engine="onnxruntime"))


def test_float32_files_have_the_identity_that_they_had(tmp_path):
    path = save_onnx(tmp_path / "net.onnx", [helper.make_node("Flatten", ["x"], ["f"]),
                                             helper.make_node("MatMul", ["f", "w"], ["y"])],
                     [floats("x", ["n", 1, 8, 8])], [floats("y", ["n", 10])],
                     [numpy_helper.from_array(np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32), "w")])
    stores = {}
    for engine in ("auto", "onnxruntime", "openvino"):
        if engine == "openvino":
            pytest.importorskip("openvino")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stores[engine] = certify(configured(str(path), tmp_path / engine, engine=engine))
        assert set(stores[engine].identity.raw["model"]) == {"by", "sha256"}
        assert stores[engine].identity.engine == {"auto": "plain"}.get(engine, engine)
        assert shards(tmp_path / engine) == shards(tmp_path / "auto")


# Weights

@pytest.mark.parametrize(("weights", "zero", "largest"), [
    (np.array([[-64, 64]], np.int8), 0, 64), (np.array([[-128, 3]], np.int8), 0, 128),
    (np.array([[-64, 64]], np.int8), 10, 74), (np.array([[64, 192]], np.uint8), 128, 64),
    (np.array([[0, 100]], np.uint8), 0, 128), (np.array([[200, 250]], np.uint8), 0, 250),
])
def test_magnitudes_are_the_largest_that_a_kernel_may_use(weights, zero, largest):
    assert magnitudes(weights, zero, 0).max() == largest


def test_only_pairs_of_one_channel_are_added():
    sizes = np.array([[128, 0], [64, 64], [100, 28]])
    assert list(describe_wide("layer", sizes, 0)) == []
    assert list(describe_wide("layer", sizes, None)) == ["layer: 255 x (128 + 100) = 58,140 > 32,767"]


def test_wide_weights_bind_to_vnni_or_are_refused(wide, monkeypatch):
    monkeypatch.setattr(runtimes, "is_x86", lambda: True)
    monkeypatch.setattr(runtimes, "instruction_sets", lambda onednn=False: ALL_SETS)
    with pytest.warns(ProcessorWarning, match=r"class 'x86 vnni'.*255 x \(126 \+ 126\) = 64,260 > 32,767"):
        assert runtime_of(load_model(wide).model).instructions == "x86 vnni"
    monkeypatch.setattr(runtimes, "instruction_sets", lambda onednn=False: ALL_SETS - {"avx512_vnni"})
    with pytest.raises(ModelError, match=r"wide\.onnx is an integer network.*this one has none.*reduce_range=True"):
        load_model(wide)


def test_other_processors_are_named_and_nothing_is_claimed(integers, monkeypatch):
    monkeypatch.setattr(runtimes, "is_x86", lambda: False)
    with pytest.warns(ProcessorWarning, match="on other kinds of processors have not been compared"):
        assert runtime_of(load_model(integers).model).instructions == platform.machine()


def test_layers_in_float32_bind_to_their_instruction_sets(monkeypatch):
    monkeypatch.setattr(runtimes, "is_x86", lambda: True)
    for sets, level in ((ALL_SETS, "avx512"), ({"avx2"}, "avx2"), (set(), "sse")):
        monkeypatch.setattr(runtimes, "instruction_sets", lambda onednn=False, sets=sets: frozenset(sets))
        assert runtimes.describe_runtime("onnxruntime", "", "1 Gemm").instructions == f"x86 {level}"


def test_operators_on_integers_are_read_as_well():
    stored = {"w": np.full((4, 3, 1, 1), 100, np.int8), "s": np.float32(0.1), "z": np.uint8(0), "zw": np.int8(0)}
    node = helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "zw", "s", "z"], ["y"], name="first")
    graph = helper.make_graph([node], "g", [floats("x", ["n", 3, 2, 2], TensorProto.UINT8)], [],
                              [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()])
    found = OnnxGraph(helper.make_model(graph))
    assert is_integer(found)
    assert wide_layers(found) == "first: 255 x (100 + 100) = 51,000 > 32,767"


# Weights alone

@pytest.mark.parametrize("opset", [13, 19])
def test_weights_alone_leave_activations_in_float32(tmp_path, opset):
    rng = np.random.default_rng(0)
    stored = {"w": rng.integers(-127, 128, (64, 10)).astype(np.int8),
              "s": rng.uniform(1e-3, 1e-2, 10).astype(np.float32)}
    path = save_onnx(tmp_path / "net.onnx", [
        helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("MatMul", ["f", "d"], ["y"])], [floats("x", ["n", 1, 8, 8])], [floats("y", ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()])
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    loaded, images = load_model(str(path)), torch.from_numpy(rng.normal(size=(50, 1, 8, 8)).astype(np.float32))
    exact = images.flatten(1).double() @ torch.from_numpy(stored["w"].astype(np.float64) * stored["s"])
    assert (loaded.activations, runtime_of(loaded.model)) == ("float32", None)
    torch.testing.assert_close(loaded.model(images).double(), exact, rtol=0, atol=1e-5)
    store = certify(configured(str(path), tmp_path / "store"))
    assert store.identity.raw["model"]["activations"] == "float32"


# Engines and errors

def test_an_integer_network_takes_another_runtime_in_python(integers):
    pytest.importorskip("openvino")
    model = load_model(integers, num_classes=10).model
    image = torch.full(SHAPE, 0.5)
    found = {engine: SmoothedClassifier(model, 0.25, 10, seed=0, engine=engine).certify(image, n=500)
             for engine in ("auto", "onnxruntime", "openvino")}
    assert found["auto"] == found["onnxruntime"]
    assert found["openvino"].prediction == found["auto"].prediction


def test_an_integer_network_has_no_other_precision(digits, tmp_path):
    with pytest.raises(InputError, match="an integer network has its own arithmetic: leave precision at float32"):
        certify(configured(digits, tmp_path / "store", precision="bf16"))


def test_a_runtime_that_loses_rows_stops_the_run(integers, monkeypatch):
    model = load_model(integers).model
    honest = runtimes.OnnxSession.run
    monkeypatch.setattr(runtimes.OnnxSession, "run", lambda self, images, outputs: {
        name: value[:0] for name, value in honest(self, images, outputs).items()})
    with pytest.raises(ModelError, match=r"was given 128 images and returned an output 'logits' of shape \(0, 10\)"):
        model(torch.zeros(3, *SHAPE))


def test_operators_that_a_runtime_lacks_are_named(tmp_path):
    pytest.importorskip("openvino")
    path = quantised_digits(tmp_path, "QOperator")
    assert runtime_of(load_model(path, num_classes=10).model).name == "onnxruntime"
    with pytest.raises(ModelError, match=r"openvino cannot run here: .*operations: com\.microsoft\.QGemm"):
        load_model(path, num_classes=10, runtime="openvino")


# OpenVINO's IR

@pytest.mark.parametrize("largest", [64, 126])
def test_an_ir_is_run_by_openvino_and_judged_by_its_weights(tmp_path, largest):
    openvino = pytest.importorskip("openvino")
    IntegerNetwork.of_largest(largest).write(tmp_path / "net.onnx")
    openvino.save_model(openvino.Core().read_model(tmp_path / "net.onnx"), tmp_path / "net.xml")
    found = instruction_sets(onednn=True)
    if largest == 126 and is_x86() and runtimes.VNNI_UNITS.isdisjoint(found):
        with pytest.raises(ModelError, match="exceed 16 bits in pairs"):
            load_model(str(tmp_path / "net.xml"))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProcessorWarning)
        loaded = load_model(str(tmp_path / "net.xml"), runtime="openvino")
    assert loaded.content == (tmp_path / "net.xml").read_bytes() + (tmp_path / "net.bin").read_bytes()
    assert runtime_of(loaded.model).name == "openvino"
    if is_x86():
        assert runtime_of(loaded.model).instructions == ("x86" if largest == 64 else "x86 vnni")
    levels = np.random.default_rng(1).integers(0, 256, (20, *SHAPE))
    wanted = torch.from_numpy(IntegerNetwork.of_largest(largest).logits(levels)).float()
    assert torch.equal(loaded.model(torch.from_numpy((levels / 256).astype(np.float32))), wanted)
    with pytest.raises(InputError, match=r"is run by openvino, got onnxruntime"):
        load_model(str(tmp_path / "net.xml"), runtime="onnxruntime")


def test_an_ir_that_is_damaged_or_without_weights_is_refused(tmp_path, integers):
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.Core().read_model(integers), tmp_path / "net.xml")
    (tmp_path / "net.xml").write_bytes((tmp_path / "net.xml").read_bytes()[:200])
    with pytest.raises(FileError, match=r"net\.xml and net\.bin cannot be loaded as OpenVINO's IR"):
        load_model(str(tmp_path / "net.xml"))
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileError, match=r"no model file .*net\.bin"):
        load_model(str(tmp_path / "net.xml"))


# bfloat16

def test_bf16_of_a_file_is_openvinos_and_says_so(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    path = save_onnx(tmp_path / "net.onnx", [helper.make_node("Flatten", ["x"], ["f"]),
                                             helper.make_node("MatMul", ["f", "w"], ["y"])],
                     [floats("x", ["n", 1, 8, 8])], [floats("y", ["n", 10])],
                     [numpy_helper.from_array(np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32), "w")])
    with pytest.raises(InputError, match="computed by OpenVINO alone, got engine 'onnxruntime'"):
        certify(configured(str(path), tmp_path / "no", precision="bf16", engine="onnxruntime"))
    units = BF16_UNITS & instruction_sets(onednn=True)
    if units:
        store = certify(configured(str(path), tmp_path / "store", precision="bf16"))
        assert store.identity.runtime.name == store.identity.engine == "openvino"
        assert store.identity.runtime.instructions.split()[1:] == sorted(units)
        assert store.identity.batch_size is None
        certify(configured(str(path), tmp_path / "other", precision="bf16", batch_size=7, threads=2))
        assert shards(tmp_path / "other") == shards(tmp_path / "store")
    monkeypatch.setattr(runtimes, "instruction_sets", lambda onednn=False: frozenset({"avx2"}))
    with pytest.raises(InputError, match=r"no units for bfloat16 \(.*\): use precision 'float32'"):
        certify(configured(str(path), tmp_path / "none", precision="bf16"))
