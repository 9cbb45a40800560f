"""ONNX files: what they give, and graphs that are refused."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model_files import WEIGHT, floats, linear_onnx, save_onnx
from smoothcert.errors import FileError, MissingExtraError, ModelError
from smoothcert.models import load_model


def expected_logits(images):
    return images.reshape(len(images), -1) @ torch.from_numpy(WEIGHT)


@pytest.mark.parametrize("batch", ["n", 4, 1])
@pytest.mark.parametrize("labels", [False, True])
def test_onnx_gives_the_logits_for_any_number_of_images(tmp_path, batch, labels):
    path = linear_onnx(tmp_path / "net.onnx", batch, labels=labels)
    loaded = load_model(str(path), input_shape=(3, 2, 2))
    assert (loaded.kind, loaded.input_shape, loaded.content) == ("onnx", (3, 2, 2), path.read_bytes())
    for n in (1, 4, 6):
        images = torch.rand(n, 3, 2, 2)
        logits = loaded.model(images)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected_logits(images))


def test_onnx_of_flattened_images_and_of_free_size(tmp_path):
    loaded = load_model(str(linear_onnx(tmp_path / "flat.onnx", shape=(12,))), input_shape=(3, 2, 2))
    images = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(loaded.model(images), expected_logits(images))
    free = load_model(str(linear_onnx(tmp_path / "free.onnx", shape=(3, "h", "w"))))
    assert free.input_shape is None
    torch.testing.assert_close(free.model(images), expected_logits(images))


def test_onnx_refuses_to_give_gradients(tmp_path):
    model = load_model(str(linear_onnx(tmp_path / "net.onnx"))).model
    images = torch.rand(2, 3, 2, 2, requires_grad=True)
    with pytest.raises(ModelError, match="no gradients"):
        model(images)
    with torch.no_grad():
        assert model(images).shape == (2, 3)


def test_onnx_weights_beside_the_file_belong_to_its_content(tmp_path):
    path = linear_onnx(tmp_path / "net.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    loaded = load_model(str(path))
    images = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(loaded.model(images), expected_logits(images))
    assert loaded.content == path.read_bytes() + (tmp_path / "net.data").read_bytes()
    (tmp_path / "net.data").unlink()
    with pytest.raises(FileError, match=r"net\.data"):
        load_model(str(path))


@pytest.mark.parametrize(("inputs", "kind", "shape", "message"), [
    (("x", "y"), TensorProto.FLOAT, ["n", 3, 2, 2], r"takes 2 inputs \(x, y\)"),
    (("x", "x"), TensorProto.DOUBLE, ["n", 3, 2, 2], r"tensor\(double\)"),
    (("x", "x"), TensorProto.FLOAT, ["n"], "flattened"),
    (("x", "x"), TensorProto.FLOAT, ["n", 3, 2, 2], r"returns z: tensor\(float\).*logits of shape \(N, K\)"),
    (("x", "x"), TensorProto.INT32, ["n", 3, 2, 2], r"takes a tensor\(int32\).*floats"),
])
def test_onnx_of_other_form_is_refused(tmp_path, inputs, kind, shape, message):
    path = save_onnx(tmp_path / "net.onnx", [helper.make_node("Add", list(inputs), ["z"])],
                     [floats(name, shape, kind) for name in sorted(set(inputs))], [floats("z", shape, kind)])
    with pytest.raises(ModelError, match=message):
        load_model(str(path))


def graph_onnx(path, nodes, outputs=("y",), shape=("n", 3, 2, 2), kind=TensorProto.FLOAT, **values):
    """An ONNX model of nodes between x and outputs (n, 3), with the flattened x as `flat` and WEIGHT as `w`."""
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in {"w": WEIGHT, **values}.items()]
    return save_onnx(path, [helper.make_node("Flatten", ["x"], ["flat"]), *nodes], [floats("x", shape, kind)],
                     [floats(name, None if name == "z" else ["n", 3], kind) for name in outputs], held)


def node(kind, inputs, outputs, **more):
    return helper.make_node(kind, inputs.split(), outputs.split(), **more)


PRODUCT = node("MatMul", "flat w", "y")
AFTER = node("MatMul", "d w", "y")


def branch(*nodes):
    return helper.make_graph(list(nodes), "g", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)])


KEEP = branch(node("Identity", "flat", "o"))
DRAWN = branch(node("If", "c", "o", then_branch=branch(node("RandomNormalLike", "flat", "o", name="deep")),
                    else_branch=KEEP))
NORM = {"g": np.ones(3, np.float32), "b": np.zeros(3, np.float32), "m": np.zeros(3, np.float32),
        "v": np.ones(3, np.float32)}
NOT_OF_ONE_IMAGE = {
    "RandomUniformLike 'noise' draws": ([node("RandomUniformLike", "flat", "e", name="noise"),
                                        node("Add", "flat e", "d"), AFTER], {}),
    "Bernoulli 'coin' draws": ([node("Clip", "flat zero one", "p"), node("Bernoulli", "p", "d", name="coin"), AFTER],
                               {"zero": np.float32(0), "one": np.float32(1)}),
    "RandomNormalLike 'deep' draws": ([node("If", "c", "d", then_branch=DRAWN, else_branch=KEEP), AFTER],
                                      {"c": np.bool_(False)}),
    "Dropout 'drop' is in training mode": ([node("Dropout", "flat r t", "d", name="drop"), AFTER],
                                           {"r": np.float32(0.5), "t": np.bool_(True)}),
    "Dropout 'd' is in training mode, or may be": (
        [node("ReduceMax", "flat", "h", keepdims=0), node("Greater", "h r", "t"), node("Dropout", "flat r t", "d"),
         AFTER], {"r": np.float32(0.5)}),
    "BatchNormalization 'norm' is in training": ([node("BatchNormalization", "x g b m v", "n mo vo", name="norm",
                                                       training_mode=1), node("Flatten", "n", "d"), AFTER], NORM),
    "MeanVarianceNormalization 'n' takes its statistics": ([node("MeanVarianceNormalization", "x", "n"),
                                                           node("Flatten", "n", "d"), AFTER], {}),
    "LayerNormalization 'd' takes its statistics": ([node("LayerNormalization", "flat s", "d", axis=0), AFTER],
                                                   {"s": np.ones((1, 12), np.float32)}),
}


@pytest.mark.parametrize("words", NOT_OF_ONE_IMAGE)
def test_onnx_graphs_of_several_images_are_refused_by_node(tmp_path, words):
    nodes, values = NOT_OF_ONE_IMAGE[words]
    path = graph_onnx(tmp_path / "net.onnx", nodes, **values)
    with pytest.raises(ModelError, match=rf"net\.onnx is not a function of one image: {words}.*: export the model"):
        load_model(str(path))


@pytest.mark.parametrize(("nodes", "values"), [
    ([node("Dropout", "flat", "d"), AFTER], {}),
    ([node("Dropout", "flat r t", "d"), AFTER], {"r": np.float32(0.5), "t": np.bool_(False)}),
    ([node("Constant", "", "t0", value_int=0), node("Cast", "t0", "t", to=TensorProto.BOOL),
      node("Dropout", "flat r t", "d"), AFTER], {"r": np.float32(0.5)}),
    ([node("BatchNormalization", "x g b m v", "n", epsilon=0.0), node("Flatten", "n", "d"), AFTER], NORM),
])
def test_onnx_graphs_in_eval_mode_are_taken(tmp_path, nodes, values):
    images = torch.rand(2, 3, 2, 2)
    model = load_model(str(graph_onnx(tmp_path / "net.onnx", nodes, **values))).model
    torch.testing.assert_close(model(images), expected_logits(images))


@pytest.mark.parametrize("trains", [True, False])
def test_onnx_functions_are_judged_by_what_they_are_called_with(tmp_path, trains):
    local = helper.make_function("local", "Drop", ["a", "t"], ["b"], [
        node("Constant", "", "r", value=numpy_helper.from_array(np.float32(0.5))),
        node("Dropout", "a r t", "b", name="within")], [helper.make_opsetid("", 17)])
    path = graph_onnx(tmp_path / "net.onnx", [node("Drop", "flat t", "d", domain="local"), AFTER], t=np.bool_(trains))
    model = onnx.load(path)
    model.functions.append(local)
    model.opset_import.append(helper.make_opsetid("local", 1))
    onnx.save(model, path)
    if trains:
        with pytest.raises(ModelError, match="Dropout 'within"):
            load_model(str(path))
    else:
        images = torch.rand(2, 3, 2, 2)
        torch.testing.assert_close(load_model(str(path)).model(images), expected_logits(images))


def test_onnx_scales_over_the_batch_are_taken_for_one_image(tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    for batch in ("n", 1):
        source = linear_onnx(tmp_path / f"{batch}.onnx", batch)
        quantization.quantize_dynamic(source, tmp_path / f"q{batch}.onnx")
    with pytest.raises(ModelError, match=r"DynamicQuantizeLinear '.*' takes its scale over the whole batch: .*static"):
        load_model(str(tmp_path / "qn.onnx"))
    model, images = load_model(str(tmp_path / "q1.onnx")).model, torch.rand(4, 3, 2, 2)
    assert torch.equal(model(images), torch.cat([model(image[None]) for image in images]))


def test_of_several_onnx_outputs_one_is_named(tmp_path):
    nodes = [node("Neg", "y", "emb"), node("Concat", "flat y", "z", axis=1)]
    spec = str(graph_onnx(tmp_path / "net.onnx", [PRODUCT, *nodes], ("emb", "y", "z")))
    images = torch.rand(5, 3, 2, 2)
    with pytest.raises(ModelError, match=r"2 outputs .*: emb \(N, 3\), y \(N, 3\); pick one with --output"):
        load_model(spec, num_classes=3)
    torch.testing.assert_close(load_model(spec, output="y").model(images), expected_logits(images))
    torch.testing.assert_close(load_model(spec, output=0).model(images), -expected_logits(images))
    assert load_model(spec, num_classes=15).model(images).shape == (5, 15)  # the one output with so many columns


@pytest.mark.parametrize("to", [[-1, 3, 1, 1], [-1, 1, 3], [-1, 3, 1]])
def test_axes_of_one_in_onnx_logits_are_dropped(tmp_path, to):
    path = graph_onnx(tmp_path / "net.onnx", [PRODUCT, node("Reshape", "y s", "z")], ("z",), s=np.array(to))
    images = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(load_model(str(path)).model(images), expected_logits(images))


@pytest.mark.parametrize(("rows", "words"), [(1, "one row at a time"), (4, "batches of exactly 4 rows")])
def test_onnx_with_a_fixed_batch_runs_in_batches_of_it(tmp_path, rows, words):
    nodes = [node("Reshape", "x s", "d"), AFTER]
    path = graph_onnx(tmp_path / "net.onnx", nodes, s=np.array([rows, 12]))
    with pytest.warns(UserWarning, match=words):
        model = load_model(str(path)).model
    images = torch.rand(6, 3, 2, 2)
    torch.testing.assert_close(model(images), expected_logits(images))


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)])
def test_images_are_cast_to_the_type_of_an_onnx_file(tmp_path, kind, dtype):
    path = graph_onnx(tmp_path / "net.onnx", [PRODUCT], kind=kind, w=WEIGHT.astype(dtype))
    loaded, images = load_model(str(path)), torch.rand(5, 3, 2, 2)
    assert loaded.input_dtype == np.dtype(dtype).name
    torch.testing.assert_close(loaded.model(images).float(), expected_logits(images), rtol=0.01, atol=0.01)
    torch.testing.assert_close(loaded.model(images), torch.cat([loaded.model(image[None]) for image in images]))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_onnx_without_its_extra(tmp_path, monkeypatch, package):
    path = linear_onnx(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"package {package},.*smoothcert\[onnx\]"):
        load_model(str(path))
