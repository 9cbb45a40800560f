"""Programs saved by torch.export: what they give, and what needs trust."""

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from model_files import Small, linear_onnx
from smoothcert.errors import FileError, ModelError
from smoothcert.models import build_model, load_model


@pytest.fixture(scope="module")
def network():
    network = Small().eval()
    network.norm.running_mean.uniform_(-1, 1)
    return network


def save_program(path, network, batch, sizes=None):
    torch.export.save(torch.export.export(network, (torch.rand(batch, 1, 8, 8),), dynamic_shapes=sizes), path)
    return str(path)


@pytest.mark.parametrize("sizes", [None, ({0: torch.export.Dim("n")},), ({0: torch.export.Dim("n", min=3, max=5)},)])
def test_program_gives_the_modules_logits_for_any_batch(tmp_path, network, sizes):
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
    (nn.Unflatten(0, (1, 2)), (torch.rand(2),), "1 dimensions"),
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
def test_the_one_output_of_a_program_is_unpacked(tmp_path, answer):
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


def test_a_program_with_keywords_gets_its_images_by_name(tmp_path):
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
def test_harmless_programs_need_no_trust_for_any_batch(tmp_path, network, size):
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


def test_a_network_of_the_registry_survives_export(tmp_path):
    network = build_model("cnn", (1, 8, 8), 4, width=4, mean=[0.3], std=[0.5]).eval()
    model = load_model(save_program(tmp_path / "cnn.pt2", network, 3), input_shape=(1, 8, 8)).model
    images = torch.rand(7, 1, 8, 8)
    torch.testing.assert_close(model(images), network(images))
