"""Users' own models: factories, exported files, hubs, and the messages where they cannot be loaded."""

import io
import subprocess
import sys
import textwrap
import zipfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from smoothcert.errors import FileError, InputError, MissingExtraError, ModelError, SmoothcertError, UnknownNameError
from smoothcert.models import MODEL_FORMS, build_model, is_model_spec, load_model


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


class Small(nn.Module):
    """A small network with what train mode changes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.dense = nn.Linear(3 * 36, 4)

    def forward(self, x):
        return self.dense(self.drop(self.norm(self.conv(x)).relu()).flatten(1))


# ---------------------------------------------------------------- specs

def test_every_listed_form_is_a_spec_and_bad_ones_list_them_all():
    for form in MODEL_FORMS:
        assert is_model_spec(form[form.rindex("(") + 1:-1].split(",")[0])
    for text in ["cnn", "runs/digits", "net.py", "timm:", ":build", "a b:c", "models/net:build", "", None, 3]:
        assert not is_model_spec(text)
        with pytest.raises(InputError) as caught:
            load_model(text)
        assert all(form in str(caught.value) for form in MODEL_FORMS)


def test_bad_known_values_are_refused(write):
    path = write("net.py", "def build(): pass")
    with pytest.raises(InputError, match="num_classes"):
        load_model(f"{path}:build", num_classes=1)
    with pytest.raises(InputError, match="input_shape"):
        load_model(f"{path}:build", input_shape=(8, 8))


# ---------------------------------------------------------------- factories

NET = """
    from torch import nn
    from sibling_of_net import CLASSES

    def build(input_shape, *, num_classes=CLASSES, width=2):
        return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2] * width // 2, num_classes))

    ready = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, CLASSES))

    class Estimator:
        classes_ = [0, 1]
        def predict_proba(self, x): return x[:, :2]

    estimator = Estimator()
    def plain(): return lambda images: images.mean((2, 3))
    def text(): return "a network"
    def kind(): return nn.Linear
    def positional(num_classes, /): return num_classes
    def fails(): raise KeyError("weights")
    def leaves(): raise SystemExit(3)
    def lazy():
        import lazy_sibling
        return lazy_sibling.model
    number = 3
"""


@pytest.fixture
def net(write):
    write("sibling_of_net.py", "CLASSES = 5\n")
    write("lazy_sibling.py", "model = print\n")
    return write("net.py", NET)


def test_factory_in_a_file_with_a_sibling(net):
    path_before = list(sys.path)
    loaded = load_model(f"{net}:build", input_shape=[1, 2, 2])
    assert loaded.model(torch.rand(3, 1, 2, 2)).shape == (3, 5)
    assert load_model(f"{net}:build", num_classes=7, input_shape=(1, 2, 2)).model[1].out_features == 7
    assert (loaded.kind, loaded.spec, loaded.content) == ("factory", f"{net}:build", net.read_bytes())
    assert sys.path == path_before
    assert "net" not in sys.modules
    assert load_model(f"{net}:lazy").model is print


def test_modules_estimators_and_functions_are_models(net):
    ready = load_model(f"{net}:ready").model
    assert isinstance(ready, nn.Module)
    assert not any(module.training for module in ready.modules())
    assert load_model(f"{net}:estimator").model.predict_proba(np.ones((2, 4))).shape == (2, 2)
    assert hasattr(load_model(f"{net}:Estimator").model, "predict_proba")
    assert load_model(f"{net}:plain").model(torch.rand(2, 3, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(("name", "error", "message"), [
    ("biuld", UnknownNameError, 'did you mean "build"'),
    ("number", ModelError, "neither a model nor a function"),
    ("text", ModelError, "returned 'a network' of type str"),
    ("kind", ModelError, "must return a torch module"),
    ("fails", ModelError, r"failed when called with \(\): KeyError: 'weights'"),
    ("leaves", ModelError, "SystemExit: 3"),
    ("positional", ModelError, "TypeError.*num_classes"),
    ("build", ModelError, r"called with \(num_classes=3\): TypeError.*input_shape"),
])
def test_unfit_attributes_are_named(net, name, error, message):
    with pytest.raises(error, match=message) as caught:
        load_model(f"{net}:{name}", num_classes=3)
    if "Error:" in message:
        assert caught.value.__cause__ is not None


def test_files_that_cannot_be_imported_leave_nothing_behind(write):
    with pytest.raises(FileError, match=r"absent\.py"):
        load_model("absent.py:build")
    modules = set(sys.modules)
    for text, message in [("import torch_of_tomorrow", "ModuleNotFoundError.*torch_of_tomorrow"),
                          ("def build(:", "SyntaxError"), ("raise ValueError('no GPU')", "ValueError: no GPU")]:
        with pytest.raises(ModelError, match=message) as caught:
            load_model(f"{write('broken.py', text)}:build")
        assert caught.value.__cause__ is not None
    assert set(sys.modules) == modules


def test_siblings_of_one_name_in_two_folders_stay_apart(write):
    for folder, answer in [("a", 1), ("b", 2)]:
        write(f"{folder}/shared_part/__init__.py", "")
        write(f"{folder}/shared_part/inner.py", f"ANSWER = {answer}\n")
        write(f"{folder}/net.py", "from shared_part.inner import ANSWER\ndef build(): return lambda x: x + ANSWER\n")
    root = write("net.py", "").parent
    models = [load_model(f"{root / folder / 'net.py'}:build").model for folder in ("a", "b", "a")]
    assert [model(0) for model in models] == [1, 2, 1]


def test_factory_in_a_module_of_the_working_directory(write, monkeypatch):
    inner = write("pack_for_test/inner.py", "def build(): return print\n")
    write("pack_for_test/__init__.py", "from pack_for_test.inner import build\n")
    monkeypatch.chdir(inner.parent.parent)
    loaded = load_model("pack_for_test:build")
    assert loaded.model is print
    assert loaded.content == inner.read_bytes()  # the file that defines the factory, not the one that passes it on
    with pytest.raises(ModelError, match="no_such_package"):
        load_model("no_such_package.part:build")


def test_the_package_itself_serves_as_a_module():
    loaded = load_model("smoothcert.models.dense:linear", num_classes=3, input_shape=(1, 4, 4))
    assert loaded.model(torch.rand(2, 1, 4, 4)).shape == (2, 3)


# ---------------------------------------------------------------- .pt2

@pytest.fixture(scope="module")
def network():
    network = Small().eval()
    network.norm.running_mean.uniform_(-1, 1)
    return network


def save_program(path, network, batch, sizes=None):
    torch.export.save(torch.export.export(network, (torch.rand(batch, 1, 8, 8),), dynamic_shapes=sizes), path)
    return str(path)


@pytest.mark.parametrize("sizes", [None, ({0: torch.export.Dim("n")},), ({0: torch.export.Dim("n", min=3, max=5)},)])
def test_program_gives_the_logits_of_the_module_for_any_number_of_images(tmp_path, network, sizes):
    spec = save_program(tmp_path / "net.pt2", network, 4, sizes)
    loaded = load_model(spec)
    assert (loaded.kind, loaded.input_shape) == ("pt2", (1, 8, 8))
    assert loaded.content == (tmp_path / "net.pt2").read_bytes()
    for n in (0, 1, 4, 6, 9):
        images = torch.rand(n, 1, 8, 8)
        torch.testing.assert_close(loaded.model(images), network(images))
    loaded.model.eval().train()  # the mode of a program is fixed; asking for another is harmless


def test_program_gives_gradients(tmp_path, network):
    model = load_model(save_program(tmp_path / "net.pt2", network, 4)).model
    x = torch.rand(5, 1, 8, 8, requires_grad=True)
    expected, got = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (network, model))
    torch.testing.assert_close(got, expected)


class Attention(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        with torch.no_grad():  # becomes a graph within the graph
            return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=self.p).flatten(1)


class Drawing(nn.Module):
    def forward(self, x):
        return (x + torch.rand_like(x)).flatten(1)


@pytest.mark.parametrize(("network", "refused"), [
    (nn.Sequential(nn.Flatten(), nn.Dropout(0.1)), True),
    (nn.Sequential(nn.BatchNorm2d(1), nn.Flatten()), True),
    (nn.Sequential(nn.InstanceNorm2d(1), nn.Flatten()), False),
    (Attention(0.0), False), (Attention(0.1), True), (Drawing(), True),
])
def test_programs_exported_in_train_mode_are_refused(tmp_path, network, refused):
    spec = save_program(tmp_path / "net.pt2", network.train(), 2)
    if refused:
        with pytest.raises(ModelError, match="train mode"):
            load_model(spec)
    else:
        load_model(spec)


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


class Answering(nn.Module):
    """A linear network whose answer is made of its logits; its input is called as transformers call theirs."""

    def __init__(self, answer=lambda y: y):
        super().__init__()
        self.dense, self.answer = nn.Linear(64, 3), answer

    def forward(self, pixel_values):
        return self.answer(self.dense(pixel_values.flatten(1)))


@pytest.mark.parametrize(("network", "arguments", "message"), [
    (TwoInputs(), (torch.rand(2, 1, 8, 8),) * 2, "takes 2 inputs"),
    (nn.Flatten(), (torch.rand(2, 8),), "2 dimensions"),
    (nn.Flatten(), (torch.ones(2, 1, 8, 8, dtype=torch.int64),), "int64"),
    (nn.Identity(), (torch.rand(2, 1, 8, 8),), r"logits of shape \(N, K\) for N images, got \(N, 1, 8, 8\)"),
    (Answering(lambda y: y.sum(1).sigmoid()), (torch.rand(2, 1, 8, 8),), r"return two columns, torch.cat\(\[-z, z\]"),
])
def test_programs_of_other_form_are_refused(tmp_path, network, arguments, message):
    torch.export.save(torch.export.export(network, arguments), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=message):
        load_model(str(tmp_path / "net.pt2"))


@pytest.mark.parametrize("answer", [
    lambda y: {"logits": y}, lambda y: (y,), lambda y: [y],
    lambda y: {"states": (y[:, :, None].repeat(1, 1, 5),), "y": y},
    lambda y: y[:, :, None, None], lambda y: y[:, None], lambda y: y[..., None],
])
def test_the_one_output_of_a_program_is_unpacked_and_axes_of_one_are_dropped(tmp_path, answer):
    network = Answering(answer).eval()
    model = load_model(save_program(tmp_path / "net.pt2", network, 4, ({0: torch.export.Dim("n")},))).model
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(model(images), network.dense(images.flatten(1)))


def test_of_several_outputs_of_a_program_one_is_named(tmp_path):
    network = Answering(lambda y: {"scores": y, "others": -y}).eval()
    spec, images = save_program(tmp_path / "net.pt2", network, 2), torch.rand(3, 1, 8, 8)
    with pytest.raises(ModelError, match=r"2 outputs .*scores \(N, 3\), others \(N, 3\); .*--output NAME"):
        load_model(spec)
    for output in ("others", 1, "1"):
        torch.testing.assert_close(load_model(spec, output=output).model(images), network(images)["others"])
    with pytest.raises(ModelError, match="no output 'logits'; it returns 'scores', 'others'"):
        load_model(spec, output="logits")


def test_a_program_exported_with_keywords_gets_its_images_by_name(tmp_path):
    network, images = Answering().eval(), torch.rand(2, 1, 8, 8)
    program = torch.export.export(network, (), {"pixel_values": images})
    torch.export.save(program, tmp_path / "net.pt2")
    torch.testing.assert_close(load_model(str(tmp_path / "net.pt2")).model(images), network(images))


@pytest.mark.parametrize(("dtype", "alone"), [(torch.float64, False), (torch.float16, True), (torch.bfloat16, True)])
def test_images_are_cast_to_the_type_of_a_program(tmp_path, dtype, alone):
    network, images = Answering().eval().to(dtype), torch.rand(5, 1, 8, 8)
    torch.export.save(torch.export.export(network, (images.to(dtype),)), tmp_path / "net.pt2")
    loaded = load_model(str(tmp_path / "net.pt2"))
    logits = torch.cat([network(image[None].to(dtype)) for image in images])
    assert loaded.input_dtype == str(dtype).removeprefix("torch.")
    assert loaded.model.fit.batch.alone is alone  # sums as coarse as these depend on the company of a row
    torch.testing.assert_close(loaded.model(images), logits if dtype == torch.float64 else logits.float(),
                               rtol=0.02, atol=0.02)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x):
        return self.encoder(x[:, 0]).flatten(1)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(8, 4, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.layer(x[:, 0])[0].flatten(1)


class Masked(nn.Module):
    def forward(self, x):
        return x.masked_fill(x < 0.5, float("-inf")).flatten(1)


@pytest.mark.parametrize(("network", "size"), [
    (Encoder(), torch.export.Dim("n")), (Recurrent(nn.LSTM), torch.export.Dim("n")), (Masked(), torch.export.Dim("n")),
    (nn.Flatten(), 8 * torch.export.Dim("n")), (nn.Flatten(), 2 * torch.export.Dim("n", max=20) + 1),
])
def test_harmless_programs_need_no_trust_and_take_any_number_of_images(tmp_path, network, size):
    loaded = load_model(save_program(tmp_path / "net.pt2", network.eval(), 16 if size.__name__ != "2*n + 1" else 17,
                                     ({0: size},)))
    for n in (1, 16, 19, 43):
        images = torch.rand(n, 1, 8, 8)
        torch.testing.assert_close(loaded.model(images), network(images))


def test_images_of_another_shape_are_refused_at_the_door(tmp_path, network):
    spec = save_program(tmp_path / "net.pt2", network, 2)
    with pytest.raises(ModelError, match=r"\(1, 8, 8\).*\(3, 32, 32\)"):
        load_model(spec, input_shape=(3, 32, 32))


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return type(self.marker).touch, (self.marker,)


def saved(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def edited(source: Path, target: Path, change) -> None:
    """A .pt2 file whose parts, name -> bytes, were changed, and its program, a JSON text."""
    with zipfile.ZipFile(source) as given:
        parts = {name: given.read(name) for name in given.namelist()}
    program = next(name for name in parts if "/models/" in name)
    change(parts, program)
    with zipfile.ZipFile(target, "w") as changed:
        for name, content in parts.items():
            changed.writestr(name, content)


def _put(before: str, after: str):
    def change(parts, program):
        assert before.encode() in parts[program]
        parts[program] = parts[program].replace(before.encode(), after.encode())
    return change


def _pickled(where: str):
    def change(parts, program):
        name = next(name for name in parts if where in name)
        parts[name] = saved(Payload(Path("ran")))
    return change


def _named_pickle(parts, program):
    name = next(name for name in parts if "weights_config" in name)
    parts[name] = parts[name].replace(b'"use_pickle": false', b'"use_pickle": true')
    parts[next(name for name in parts if "weights/weight_0" in name)] = saved(Payload(Path("ran")))


_CODE = "__import__('pathlib').Path('ran').touch()"
HOSTILE = {
    "example inputs": _pickled("sample_inputs"),
    "weights": _named_pickle,
    "another part": lambda parts, program: parts.update({"net/data/extra/code.py": b"1"}),
    "a part twice": lambda parts, program: parts.update({program.upper(): parts[program]}),
    "an expression": _put("Symbol('", f"{_CODE} or Symbol('"),
    "a power": _put("Symbol('", "9**9**9**9 + Symbol('"),
    "a name": _put('"name": "x"', f'"name": "x={_CODE}"'),
    "a range": _put('"range_constraints": {"', f'"range_constraints": {{"{_CODE}": {{"min_val": 2, "max_val": 3}}, "'),
    "a number": _put('"as_int": 1}', f'"as_float": "{_CODE}"}}'),
    "a number by name": _put('"as_int": 1}', f'"as_name": "{_CODE}"}}'),
    "a guard": _put('"guards_code": []', f'"guards_code": ["{_CODE}"]'),
    "a function": _put("torch.ops.aten.linear.default", "torch.os.system"),
    "a hidden name": _put("torch.ops.aten.linear.default", "torch.ops.aten.__class__.default"),
    "a file": _put("torch.ops.aten.linear.default", "torch.ops.aten.from_file.default"),
    "a container": _put("builtins.tuple", "collections.namedtuple"),
    "an unknown field": _put('"guards_code"', '"codegen": "import os", "guards_code"'),
}


@pytest.mark.parametrize("way", HOSTILE)
def test_an_exported_program_that_could_run_code_needs_trust(tmp_path, network, monkeypatch, way):
    """Everything but what is known to be harmless, however torch would take it."""
    monkeypatch.chdir(tmp_path)
    spec = save_program(tmp_path / "net.pt2", network, 4, ({0: torch.export.Dim("n")},))
    edited(Path(spec), tmp_path / "hostile.pt2", HOSTILE[way])
    with pytest.raises(ModelError, match=r"could run code .*--trust.*trust=True"):
        load_model("hostile.pt2")
    assert not Path("ran").exists()


def test_torch_runs_what_is_hidden_in_a_program(tmp_path, network, monkeypatch):
    """Why it takes trust: were this to fail, torch would have become safe."""
    monkeypatch.chdir(tmp_path)
    edited(Path(save_program(tmp_path / "net.pt2", network, 4)), tmp_path / "hostile.pt2", HOSTILE["example inputs"])
    with suppress(FileError):
        load_model("hostile.pt2", trust=True)
    assert Path("ran").exists()


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_missing_and_corrupt_files_are_named(tmp_path, suffix, network):
    path = tmp_path / f"net.{suffix}"
    with pytest.raises(FileError, match=path.name):
        load_model(str(path))
    contents = [b"hello", b""]
    if suffix == "pt2":
        contents.append((tmp_path / save_program(tmp_path / "whole.pt2", network, 2)).read_bytes()[:-400])
    else:
        contents.append(linear_onnx(tmp_path / "whole.onnx").read_bytes()[:-60])
    for content in contents:
        path.write_bytes(content)
        with pytest.raises((FileError, ModelError), match=path.name):  # what is left of a .pt2 can be another archive
            load_model(str(path))


# ---------------------------------------------------------------- .onnx

WEIGHT = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


def expected_logits(images):
    return images.reshape(len(images), -1) @ torch.from_numpy(WEIGHT)


def save_onnx(path, nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def floats(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def linear_onnx(path, batch="n", shape=(3, 2, 2), labels=False):
    """Logits = flattened images times WEIGHT; with labels, after an output of class numbers."""
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    outputs = [floats("logits", [batch, 3])]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, floats("label", [batch], TensorProto.INT64))
    return save_onnx(path, nodes, [floats("x", [batch, *shape])], outputs, [numpy_helper.from_array(WEIGHT, "w")])


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


def test_onnx_weights_stored_beside_the_file_belong_to_its_content(tmp_path):
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
    (("x", "x"), TensorProto.FLOAT, ["n", 3, 2], "flattened"),
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
def test_onnx_graphs_that_are_no_function_of_one_image_are_refused_by_node(tmp_path, words):
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


def test_onnx_with_scales_over_the_batch_is_taken_for_one_image_at_a_time_only(tmp_path):
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
def test_onnx_with_a_batch_baked_into_its_graph_runs_in_batches_of_that_size(tmp_path, rows, words):
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


def test_importing_the_room_imports_no_optional_package():
    optional = {"onnx", "onnxruntime", "transformers", "timm", "torchvision"}
    code = f"import sys, smoothcert.models; print({optional} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


# ---------------------------------------------------------------- hubs, by stand-ins for their libraries

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.1, 0.5]


class Seen(nn.Module):
    """A network that keeps what it is given."""

    def __init__(self, wrap=lambda logits: logits):
        super().__init__()
        self.drop, self.wrap = nn.Dropout(0.5), wrap

    def forward(self, x):
        self.images = x
        return self.wrap(x.mean((2, 3)))


def fake_transformers(processor):
    def from_pretrained(name, trust_remote_code):
        assert not trust_remote_code
        if name != "lab/net":
            raise OSError(f"{name} is not a model")
        return Seen(lambda logits: SimpleNamespace(logits=logits))

    return SimpleNamespace(
        AutoModelForImageClassification=SimpleNamespace(from_pretrained=from_pretrained),
        AutoImageProcessor=SimpleNamespace(from_pretrained=lambda name, trust_remote_code: processor))


def fake_timm():
    def create_model(name, pretrained):
        assert pretrained
        if name != "net":
            raise RuntimeError(f"Unknown model ({name})")
        network = Seen()
        network.pretrained_cfg = {"mean": tuple(MEAN), "std": tuple(STD), "input_size": (3, 6, 8)}
        return network

    return SimpleNamespace(create_model=create_model)


def fake_torchvision():
    def get_model(name, weights):
        if name != "net":
            raise ValueError(f"Unknown model {name}")
        assert weights == "DEFAULT"
        return Seen()

    transforms = SimpleNamespace(mean=MEAN, std=STD, crop_size=[6])
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: transforms))
    return SimpleNamespace(models=SimpleNamespace(get_model=get_model, get_model_weights=lambda name: weights))


def install(monkeypatch, name, stand_in):
    module = ModuleType(name)
    module.__dict__.update(vars(stand_in))
    monkeypatch.setitem(sys.modules, name, module)


def processor(**changes):
    return SimpleNamespace(**{"image_mean": MEAN, "image_std": STD, "do_rescale": True, "rescale_factor": 1 / 255,
                              "do_normalize": True, "do_resize": True, "size": {"height": 6, "width": 8}, **changes})


def normalised(images, mean=MEAN, std=STD):
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize(("spec", "package", "stand_in", "size"), [
    ("hf:lab/net", "transformers", fake_transformers(processor()), (6, 8)),
    ("timm:net", "timm", fake_timm(), (6, 8)),
    ("torchvision:net", "torchvision", fake_torchvision(), (6, 6)),
])
def test_hub_models_normalise_and_resize_inside(monkeypatch, spec, package, stand_in, size):
    install(monkeypatch, package, stand_in)
    loaded = load_model(spec)
    assert (loaded.kind, loaded.content) == (spec.partition(":")[0], spec.encode())
    assert not any(module.training for module in loaded.model.modules())
    fitting = torch.rand(2, 3, *size)
    assert loaded.model(fitting).shape == (2, 3)
    torch.testing.assert_close(loaded.model.network.images, normalised(fitting))
    loaded.model(torch.full((1, 3, 12, 10), 0.7))
    torch.testing.assert_close(loaded.model.network.images, normalised(torch.full((1, 3, *size), 0.7)))
    with pytest.raises(InputError, match=r"\(N, 3, H, W\)"):
        loaded.model(torch.rand(1, 1, *size))
    with pytest.raises(ModelError, match=r"other cannot be loaded: \w+Error: .*other"):
        load_model(spec.partition(":")[0] + ":other")


@pytest.mark.parametrize(("changes", "mean", "std", "size"), [
    ({"rescale_factor": 1 / 127.5}, [m / 2 for m in MEAN], [s / 2 for s in STD], (6, 8)),
    ({"do_normalize": False}, [0.0] * 3, [1.0] * 3, (6, 8)),
    ({"do_rescale": False, "do_normalize": False}, [0.0] * 3, [1 / 255] * 3, (6, 8)),
    ({"do_center_crop": True, "crop_size": {"height": 5, "width": 5}}, MEAN, STD, (5, 5)),
    ({"size": {"shortest_edge": 7}}, MEAN, STD, (7, 7)),
    ({"size": SimpleNamespace(height=9, width=4, shortest_edge=None)}, MEAN, STD, (9, 4)),
    ({"size": 5}, MEAN, STD, (5, 5)),
    ({"do_resize": False}, MEAN, STD, None),
    ({"image_mean": 0.5, "image_std": 0.25}, [0.5] * 3, [0.25] * 3, (6, 8)),
    ({"size": {"longest_edge": 7}}, MEAN, STD, (7, 7)),
    ({"size": [5, 4]}, MEAN, STD, (5, 4)),
    ({"do_center_crop": True, "crop_size": None, "size": {"shortest_edge": 4}, "crop_pct": 0.9}, MEAN, STD, (4, 4)),
    ({"do_rescale": True, "rescale_factor": None}, MEAN, STD, (6, 8)),
])
def test_processors_of_transformers_are_put_inside(monkeypatch, changes, mean, std, size):
    install(monkeypatch, "transformers", fake_transformers(processor(**changes)))
    model = load_model("hf:lab/net").model
    images = torch.rand(2, 3, *(size or (11, 3)))
    model(images)
    torch.testing.assert_close(model.network.images, normalised(images, mean, std))
    assert model.size == size


@pytest.mark.parametrize(("changes", "words"), [
    ({"do_flip_channel_order": True}, "do_flip_channel_order = True"),
    ({"size": {"max_height": 4, "max_width": 4}}, r"size = .*max_height.*height and width, shortest_edge"),
    ({"size": None}, "size = None"),
    ({"image_mean": None}, "image_mean = None"),
    ({"image_std": [0.5]}, r"3 channel\(s\) and std has 1|image_std"),
])
def test_processors_that_cannot_go_inside_are_refused(monkeypatch, changes, words):
    install(monkeypatch, "transformers", fake_transformers(processor(**changes)))
    with pytest.raises(SmoothcertError, match=words):
        load_model("hf:lab/net")


@pytest.mark.parametrize("changes", [
    {"do_normalize": False}, {"image_mean": 0.0, "image_std": 1.0}, {"image_mean": [0.0], "image_std": [1.0]}])
def test_processors_of_grey_images_are_put_inside(monkeypatch, changes):
    stand_in = fake_transformers(processor(**changes))
    network = Seen(lambda logits: SimpleNamespace(logits=logits))
    network.config = SimpleNamespace(num_channels=1)
    stand_in.AutoModelForImageClassification = SimpleNamespace(from_pretrained=lambda *a, **b: network)
    install(monkeypatch, "transformers", stand_in)
    images = torch.rand(2, 1, 6, 8)
    load_model("hf:lab/net").model(images)
    torch.testing.assert_close(network.images, images)


def test_grey_images_become_colour_where_the_processor_converts_them(monkeypatch):
    install(monkeypatch, "transformers", fake_transformers(processor(do_convert_rgb=True)))
    model, images = load_model("hf:lab/net").model, torch.rand(2, 1, 6, 8)
    model(images)
    torch.testing.assert_close(model.network.images, normalised(images.expand(-1, 3, -1, -1)))


def test_a_longest_edge_keeps_the_shape_of_images(monkeypatch):
    install(monkeypatch, "transformers", fake_transformers(processor(size={"longest_edge": 8})))
    model = load_model("hf:lab/net").model
    model(torch.rand(1, 3, 16, 12))
    assert model.network.images.shape == (1, 3, 8, 6)


@pytest.mark.parametrize(("spec", "package", "extra"), [
    ("hf:lab/net", "transformers", "hub"), ("timm:net", "timm", "vision"), ("torchvision:net", "torchvision", "vision"),
])
def test_hubs_without_their_extras(monkeypatch, spec, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*smoothcert\[{extra}\]"):
        load_model(spec)


def test_a_real_network_of_transformers_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the hub extra is not installed")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 384}).save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}").model
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_a_network_of_the_registry_survives_export(tmp_path):
    network = build_model("cnn", (1, 8, 8), 4, width=4, mean=[0.3], std=[0.5]).eval()
    model = load_model(save_program(tmp_path / "cnn.pt2", network, 3), input_shape=(1, 8, 8)).model
    images = torch.rand(7, 1, 8, 8)
    torch.testing.assert_close(model(images), network(images))
