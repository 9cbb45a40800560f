"""Models from users' Python code, and the forms of a model's name."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from model_files import NET
from smoothcert.errors import FileError, InputError, ModelError, UnknownNameError
from smoothcert.models import MODEL_FORMS, is_model_spec, load_model


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
        load_model(f"{path}:build", num_classes=0)
    with pytest.raises(InputError, match="input_shape"):
        load_model(f"{path}:build", input_shape=(8, 0))


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


def test_importing_the_room_imports_no_optional_package():
    optional = {"onnx", "onnxruntime", "transformers", "timm", "torchvision"}
    code = f"import sys, smoothcert.models; print({optional} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
