"""An index means the same class to the model and to the data: lists of names, how they match, and what rests on it.

The images of class k are bright in a square of their own, and the classifier sums these squares, so that every
certified accuracy is 1 where classes are matched and far below where they are not.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from smoothcert.classes import (
    ClassWarning,
    choose_names,
    class_columns,
    in_order_of_numbers,
    match_classes,
    names_by_index,
    names_in_text,
    own_classes,
    read_class_names,
)
from smoothcert.cli.main import app
from smoothcert.data import from_tensors, load_data
from smoothcert.errors import ConfigError, FileError, InputError, ModelError
from smoothcert.models.hub import _class_names
from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.runs.certify import certify
from smoothcert.runs.options import AttackConfig, CertifyConfig
from smoothcert.runs.reopen import reopen_data
from smoothcert.store.store import Store, read_store
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

NAMES = ("ant", "bee", "cat", "dog")

MODELS = """
import numpy as np
import torch
from torch import nn

class Sums(nn.Module):
    def __init__(self, order=range(4), num_classes=4):
        super().__init__()
        weight = torch.zeros(4, 1, 8, 8)
        for row, k in enumerate(order):
            weight[row, 0, 4 * (k // 2):4 * (k // 2) + 4, 4 * (k % 2):4 * (k % 2) + 4] = 1
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes, bias=False))
        self.layers.load_state_dict({"1.weight": weight.flatten(1)})

    def forward(self, images):
        return self.layers(images)

class Sklearn:
    def __init__(self, classes, order=range(4)):
        self.classes_, self.network = np.array(classes), Sums(order)

    def predict_proba(self, rows):
        with torch.no_grad():
            return self.network(torch.from_numpy(rows).reshape(-1, 1, 8, 8)).numpy()

def plain(): return Sums()
def sized(num_classes): return Sums(num_classes=num_classes)
def named(): return Sklearn(["ant", "bee", "cat", "dog"])
def turned(): return Sklearn(["dog", "bee", "cat", "ant"], (3, 1, 2, 0))
def floats(): return Sklearn([0.0, 1.0, 2.0, 3.0])
def digits(): return Sklearn(["0", "1", "2", "3"])
def angles(): return Sklearn([0, 90, 180, 270])
"""


def picture(k: int) -> np.ndarray:
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[4 * (k // 2) :, 4 * (k % 2) :][:4, :4] = 255
    return pixels


def folder(root: Path, classes: dict[str, int], split: str = "test", count: int = 2) -> str:
    for name, k in classes.items():
        (root / split / name).mkdir(parents=True, exist_ok=True)
        for copy in range(count):
            Image.fromarray(picture(k)).save(root / split / name / f"{copy}.png")
    return f"imagefolder:{root}"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("models") / "own.py"
    path.write_text(MODELS)
    return str(path)


def run(model: str, data: str, out: Path, **options) -> Store:
    return certify(CertifyConfig(model=model, data=data, out=out, model_id="m", sigma=0.1, n=200, n0=20, seed=0,
                                 **options))


def accuracy(store: Store) -> float:
    return float((store.correct & (store.column("radius") > 0)).mean())


class TestLists:
    @pytest.mark.parametrize("text", [
        "ant\nbee\ncat\n", "\ufeffant\r\nbee\r\ncat\r\n\r\n", '["ant", "bee", "cat"]',
        '{"0": "ant", "2": "cat", "1": "bee"}', '{"bee": 1, "ant": 0, "cat": 2}',
        '{"0": ["ant", "x"], "1": ["bee", "x"], "2": ["cat", "y"]}',
        '{"architectures": ["Net"], "id2label": {"0": "ant", "1": "bee", "2": "cat"}, "num_labels": 3}',
        '{"label2id": {"bee": 1, "ant": 0, "cat": 2}}',
    ])
    def test_a_file_has_one_a_line_or_json(self, tmp_path, text):
        (tmp_path / "names").write_text(text)
        assert read_class_names(tmp_path / "names") == ("ant", "bee", "cat")

    @pytest.mark.parametrize(("text", "words"), [
        ("", "must hold class names"), ("ant\n\nbee\n", "name 2 of 3"), ("ant\nbee\nant\n", "'ant' more than once"),
        ("[1.5, 2]", "name 1 of 2"), ('{"1": "ant", "2": "bee"}', "every index from 0 on"), ("[1,", "corrupt"),
        ('{"0": [], "1": []}', "every index from 0 on"), ('{"id2label": {"1": "ant"}}', "every index from 0 on"),
    ])
    def test_what_is_no_list_is_refused(self, tmp_path, text, words):
        (tmp_path / "names").write_text(text)
        with pytest.raises((InputError, FileError), match=words):
            read_class_names(tmp_path / "names")

    def test_a_missing_file_is_a_mistake_among_others(self, tmp_path):
        with pytest.raises(ConfigError, match=r"2 mistakes(.|\n)*nowhere cannot be read"):
            CertifyConfig.parse({"model": "m", "out": tmp_path / "s", "classes": str(tmp_path / "nowhere"), "n": 0})

    @pytest.mark.parametrize("text", ["{0: 'ant', 1: 'bee'}", '{"0": "ant", "1": "bee"}', '["ant", "bee"]'])
    def test_lists_in_metadata(self, text):
        assert names_in_text(text) == ("ant", "bee")

    @pytest.mark.parametrize("text", ["", "ant, bee", "[1, 2]", "{0: 'ant', 2: 'bee'}", "[" * 100_000, "{}", "[]"])
    def test_other_metadata_says_nothing(self, text):
        assert names_in_text(text) is None

    def test_indices_may_be_texts_on_either_side(self):
        assert names_by_index({"cat": "1", "ant": "0"}) == ("ant", "cat")
        assert names_by_index({0: "LABEL_0", 1: "LABEL_1"}) == ("LABEL_0", "LABEL_1")

    def test_numbers_are_names_where_they_are_no_indices(self):
        assert own_classes([0, 90, 180], 3) == (("0", "90", "180"), ("0", "90", "180"))
        assert own_classes([2.0, 0.0], 3) == ((2, 0), None)
        assert own_classes(["0", "1", "10"] + [str(k) for k in range(2, 10)], 2)[1] == tuple(map(str, range(11)))
        columns = class_columns(["0", "1", "10"] + [str(k) for k in range(2, 10)], 11)
        assert columns is not None
        assert columns.tolist() == [0, 1, 10, *range(2, 10)]


class TestMatching:
    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(("data", "places"), [
        (NAMES, [0, 1, 2, 3]), (("dog", "ant", "cat", "bee"), [3, 0, 2, 1]), (("dog", "bee"), [3, 1]), (("cat",), [2]),
    ])
    def test_by_name_in_any_order_and_number(self, data, places):
        assert match_classes(NAMES, data).tolist() == places

    @pytest.mark.parametrize(("model", "data", "places"), [
        (("Dog", "cat"), ("cat", "dog"), [1, 0]), (("golden retriever", "cat"), ("Cat", "golden_retriever"), [1, 0]),
        (("caf\u00e9", "bar"), ("bar", "cafe\u0301"), [1, 0]),
    ])
    def test_another_spelling_is_said(self, model, data, places):
        with pytest.warns(ClassWarning, match="spelt otherwise"):
            assert match_classes(model, data).tolist() == places

    @pytest.mark.parametrize(("model", "data", "words"), [
        (NAMES, ("dog", "horse"), "only the data have horse"),
        (("Dog", "dog", "cat"), ("DOG", "cat"), "DOG could be several"),
        (("crane", "cat", "crane"), ("crane", "cat"), "crane could be several"),
        (("dog", "cat"), ("dog", "Dog"), "several classes of the data would be one"),
        (NAMES, ("0", "1"), "only the data have 0, 1"), (NAMES, ("1", "2", "3", "4"), "only the data have 1, 2, 3"),
    ])
    def test_others_are_refused_with_both_lists(self, model, data, words):
        with pytest.raises(InputError, match=words) as caught:
            match_classes(model, data)
        assert f"the model, {len(model)}: " in str(caught.value)
        assert f"the data, {len(data)}: " in str(caught.value)
        assert "--classes FILE" in str(caught.value)

    def test_long_lists_begin_with_what_differs(self):
        model = [f"class {k:03d}" for k in range(1000)]
        with pytest.raises(InputError) as caught:
            match_classes(model, [*model[:998], "new\x1b[31m"])
        text = str(caught.value)
        assert r"the data, 999: 'new\x1b[31m', class 000" in text
        assert "the model, 1000: class 998, class 999, class 000" in text
        assert "(990 more)" in text
        assert len(text) < 1000

    @pytest.mark.parametrize(("model", "data"), [
        (("0", "1", "2", "3"), NAMES), (NAMES, ("0", "1", "2", "3")), (NAMES, tuple(f"n0000000{k}" for k in range(4))),
    ])
    def test_numbers_cannot_be_compared_with_words(self, model, data):
        with pytest.warns(ClassWarning, match="cannot be compared"):
            assert match_classes(model, data).tolist() == [0, 1, 2, 3]

    def test_a_list_that_contradicts_the_model_is_refused(self):
        with pytest.raises(InputError, match="in another order"):
            choose_names(NAMES, NAMES[::-1])
        assert choose_names(NAMES, ("w", "x", "y", "z")) == ("w", "x", "y", "z")
        assert choose_names(None, NAMES) == choose_names(NAMES, None) == NAMES


class TestOnnx:
    """Files whose scores are sums over squares, and what they say of their four classes."""

    def store(self, tmp_path: Path, data: dict[str, int], nodes: Sequence[str] = (), labels: Any = None,
              told: dict[str, str] | None = None) -> Store:
        onnx = pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        helper, kinds = onnx.helper, onnx.TensorProto
        weight = np.stack([picture(k).reshape(64) / 255 for k in range(4)]).astype(np.float32)
        made = [helper.make_node("Flatten", ["x"], ["f"])]
        outputs, held = [helper.make_tensor_value_info("y", kinds.FLOAT, ["N", 4])], []
        if "linear" in nodes:
            name = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
            made.append(helper.make_node("LinearClassifier", ["f"], ["l", "s"], domain="ai.onnx.ml", coefficients=list(
                weight.reshape(-1).tolist()), intercepts=[0.0] * 4, multi_class=1, post_transform="NONE",
                **{name: labels}))
            made.append(helper.make_node("Identity", ["s"], ["y"]))
        else:
            held = [onnx.numpy_helper.from_array(weight.T, "W")]
            made.append(helper.make_node("MatMul", ["f", "W"], ["y"]))
        if "table" in nodes:
            held.append(helper.make_tensor("names", kinds.STRING, [4], [name.encode() for name in labels]))
            made.append(helper.make_node("ArgMax", ["y"], ["a"], axis=1, keepdims=0))
            made.append(helper.make_node("ArrayFeatureExtractor", ["names", "a"], ["label"], domain="ai.onnx.ml"))
            outputs.append(helper.make_tensor_value_info("label", kinds.STRING, None))
        images = helper.make_tensor_value_info("x", kinds.FLOAT, ["N", 1, 8, 8])
        model = helper.make_model(helper.make_graph(made, "g", [images], outputs, held), opset_imports=[
            helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)])
        model.ir_version = 10
        helper.set_model_props(model, told or {})
        onnx.save(model, tmp_path / "m.onnx")
        return run(str(tmp_path / "m.onnx"), folder(tmp_path, data), tmp_path / "s")

    @pytest.mark.parametrize(("nodes", "labels", "told"), [
        (["linear"], NAMES, {}), (["table"], NAMES, {}), ([], None, {"names": str(dict(enumerate(NAMES)))}),
        ([], None, {"id2label": json.dumps(dict(enumerate(NAMES))), "labels": "any"}),
    ])
    def test_names_of_a_file_are_compared(self, tmp_path, nodes, labels, told):
        store = self.store(tmp_path, {"dog": 3, "bee": 1}, nodes, labels, told)
        assert (accuracy(store), store.class_names) == (1, NAMES)

    def test_numbers_say_which_column_is_which_class(self, tmp_path):
        classes = {"c0": 1, "c1": 0, "c2": 3, "c3": 2}
        assert accuracy(self.store(tmp_path, classes, ["linear"], [1, 0, 3, 2])) == 1

    def test_a_file_that_says_nothing_is_taken_in_its_order(self, tmp_path):
        assert accuracy(self.store(tmp_path, dict(zip(NAMES, range(4), strict=True)), told={"names": "four"})) == 1


@pytest.mark.parametrize(("config", "names"), [
    ({"id2label": {0: "cat", 1: "dog"}}, ("cat", "dog")), ({"label2id": {"dog": "1", "cat": "0"}}, ("cat", "dog")),
    ({"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, None), ({}, None),
    ({"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"dog": 1, "cat": 0}}, ("cat", "dog")),
])
def test_names_in_the_configuration_of_a_hub_model(config, names):
    assert _class_names(SimpleNamespace(**config)) == names


class TestData:
    def test_numeric_names_are_said_and_can_be_ordered(self, tmp_path):
        data = folder(tmp_path, {str(k): 0 for k in range(12)}, count=1)
        with pytest.warns(ClassWarning, match=r"in the order 0, 1, 10, 11, 2, .*numeric.classes"):
            assert load_data(data).class_names[2] == "10"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ordered = load_data(data, numeric_classes=True)
        assert ordered.class_names == tuple(map(str, range(12)))
        names = [Path(ordered.source.where(i)).parent.name for i in range(12)]
        assert [int(name) for name in names] == ordered.labels.tolist()

    @pytest.mark.filterwarnings("error")
    def test_nothing_is_said_where_both_orders_agree(self, tmp_path):
        assert load_data(folder(tmp_path, {str(k): 0 for k in range(10)}, count=1)).num_classes == 10

    def test_other_names_have_no_order_of_numbers(self, tmp_path):
        with pytest.raises(InputError, match=r"numeric_classes .* ant, bee"):
            load_data(folder(tmp_path, {"ant": 0, "bee": 1}), numeric_classes=True)

    def test_an_own_list_gives_the_indices(self, tmp_path):
        data = folder(tmp_path, {"dog": 3, "bee": 1})
        (tmp_path / "names").write_text("\n".join(NAMES))
        for classes in (NAMES, tmp_path / "names"):
            loaded = load_data(data, classes=classes)
            assert (loaded.class_names, loaded.labels.tolist()) == (NAMES, [1, 1, 3, 3])
        with pytest.raises(InputError, match="classes has 4 names"):
            load_data(data, classes=NAMES, num_classes=3)

    def test_labels_without_names_are_the_models_indices(self):
        data = from_tensors(np.zeros((3, 1, 2, 2), np.uint8), [0, 2, 1])
        named = data.with_classes(NAMES)
        assert (named.class_names, named.labels.tolist()) == (NAMES, [0, 2, 1])
        with pytest.raises(InputError, match=r"go up to 2: give --num-classes 4"):
            data.with_classes(None, 4)
        with pytest.raises(InputError, match=r"go up to 2: these are the labels of other classes"):
            data.with_classes(None, 2)


class TestRuns:
    @pytest.mark.parametrize("model", ["plain", "named", "floats"])
    def test_where_names_agree_or_say_nothing_all_is_as_it_was(self, tmp_path, models, model):
        store = run(f"{models}:{model}", folder(tmp_path, dict(zip(NAMES, range(4), strict=True))), tmp_path / "s")
        assert accuracy(store) == 1
        assert store.class_names == NAMES

    @pytest.mark.parametrize("classes", [{"dog": 3, "bee": 1}, {"cat": 2}, {"Cat": 2, "dog ": 3}])
    def test_some_of_a_models_classes(self, tmp_path, models, classes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClassWarning)
            store = run(f"{models}:named", folder(tmp_path, classes), tmp_path / "s")
        assert (accuracy(store), store.num_classes, store.class_names) == (1, 4, NAMES)
        assert set(store.column("label")) == set(classes.values())

    @pytest.mark.parametrize("model", ["plain", "sized", "floats"])
    def test_a_model_without_names_needs_a_list(self, tmp_path, models, model):
        data = folder(tmp_path, {"dog": 3, "bee": 1})
        with pytest.raises((InputError, ModelError), match="--classes"):
            run(f"{models}:{model}", data, tmp_path / "s")
        assert not (tmp_path / "s").exists()
        assert accuracy(run(f"{models}:{model}", data, tmp_path / "s", classes=NAMES)) == 1

    def test_numbers_of_a_model_that_takes_them_as_indices(self, tmp_path, models):
        data = folder(tmp_path, {"3": 3, "1": 1})
        with pytest.raises(InputError, match="or --numeric-classes"):
            run(f"{models}:plain", data, tmp_path / "s")
        assert accuracy(run(f"{models}:plain", data, tmp_path / "s", numeric_classes=True)) == 1
        assert accuracy(run(f"{models}:digits", data, tmp_path / "t")) == 1
        angles = folder(tmp_path / "angles", {"90": 1, "180": 2, "270": 3})
        assert accuracy(run(f"{models}:angles", angles, tmp_path / "u")) == 1

    def test_labels_without_names(self, tmp_path, models):
        table = pa.table({"image": [picture(k).tolist() for k in (0, 2)], "label": [0, 2]})
        pq.write_table(table, tmp_path / "x.parquet")
        data = f"parquet:{tmp_path / 'x.parquet'}"
        assert run(f"{models}:named", data, tmp_path / "s").class_names == NAMES
        with pytest.raises(InputError, match="--num-classes 4"):
            run(f"{models}:plain", data, tmp_path / "t")
        assert accuracy(run(f"{models}:plain", data, tmp_path / "t", num_classes=4)) == 1

    def test_a_store_draws_again_and_shows_its_classes(self, tmp_path, models):
        data = folder(tmp_path, {"dog": 3, "bee": 1})
        store = run(f"{models}:plain", data, tmp_path / "s", classes=NAMES)
        found = verify(VerifyConfig(store=tmp_path / "s", resample=2, model=f"{models}:plain", data=data))
        assert not found.problems
        shown = reopen_data(store, data)
        assert [shown.class_names[label] for label in shown.labels] == ["bee", "bee", "dog", "dog"]

    def test_stores_of_other_orders_are_compared_by_name(self, tmp_path, models):
        data = folder(tmp_path, dict(zip(NAMES, range(4), strict=True)))
        one = Result.of(run(f"{models}:named", data, tmp_path / "one"))
        two = Result.of(run(f"{models}:turned", data, tmp_path / "two"))
        assert one.label is not None
        assert two.label is not None
        assert one.label.tolist() != two.label.tolist()
        assert compare(one, two, [0.0], 0.05).differences[0].value == 0

    def test_an_attack_wants_a_class_of_the_model(self, tmp_path, models):
        from smoothcert.runs.attack import attack

        data = folder(tmp_path, {"dog": 3, "bee": 1})
        store = attack(AttackConfig(model=f"{models}:plain", data=data, classes=NAMES, target=3, sigma=0.1, eps="0.1",
                                    steps="1", m="1", n="50", seed=0, out=tmp_path / "s"))
        assert set(store.column("label")) == {1}

    def test_the_command_line_and_a_file_of_options(self, tmp_path, models):
        data = folder(tmp_path, {"dog": 3, "bee": 1})
        (tmp_path / "names.json").write_text(json.dumps(NAMES))
        (tmp_path / "c.yaml").write_text(f"classes: {list(NAMES)}\n")
        for option, file in (("--classes", "names.json"), ("--config", "c.yaml")):
            out = tmp_path / f"s{option}"
            result = CliRunner().invoke(app, ["predict", f"{models}:plain", "--data", data, "--sigma", "0.1", "--n",
                                              "50", "-q", "-o", str(out), option, str(tmp_path / file)])
            assert result.exit_code == 0, result.output
            assert read_store(out).correct.all()


OPTIONS: dict[str, Any] = {"model": "linear", "sigma": 0.1, "epochs": 4, "batch_size": 8, "validation": 0.2, "lr": 0.5}


class TestTraining:
    def trained(self, tmp_path: Path, classes: dict[str, int], name: str = "m", **options) -> Path:
        data = folder(tmp_path / f"{name}-data", classes, "train", count=8)
        train(TrainConfig(data=data, out=tmp_path / name, **{**OPTIONS, **options}))
        return tmp_path / name

    def test_a_split_in_another_order_or_without_a_class(self, tmp_path):
        model = self.trained(tmp_path, {"Dog": 0, "cat": 1, "hen": 2})
        with pytest.warns(ClassWarning, match="dog is taken for Dog"):
            store = run(str(model), folder(tmp_path / "x", {"cat": 1, "dog": 0}), tmp_path / "s")
        assert (accuracy(store), store.class_names) == (1, ("Dog", "cat", "hen"))
        with pytest.raises(InputError, match="only the data have horse"):
            run(str(model), folder(tmp_path / "y", {"cat": 1, "horse": 0}), tmp_path / "t")

    def test_numbers_in_their_order_are_kept_in_the_card(self, tmp_path):
        model = self.trained(tmp_path, {"0": 0, "90": 1, "180": 2}, numeric_classes=True)
        assert json.loads((model / "model.json").read_text())["class_names"] == ["0", "90", "180"]
        assert accuracy(run(str(model), folder(tmp_path / "x", {"0": 0, "180": 2}), tmp_path / "s")) == 1

    def test_a_head_is_kept_in_its_order_and_fresh_for_others(self, tmp_path):
        source = self.trained(tmp_path, {"ant": 0, "bee": 1}, "source", model="mlp")
        data = folder(tmp_path / "again", {"BEE": 1, "ant": 0}, "train", count=8)
        options = {**OPTIONS, "model": None, "init": source, "epochs": 1}
        with pytest.warns(ClassWarning, match="BEE is taken for bee"):
            card = train(TrainConfig(data=data, out=tmp_path / "m", **options))
        assert (card.class_names, card.init and card.init["fresh"]) == (("ant", "bee"), [])
        others = folder(tmp_path / "others", {"cow": 0, "dog": 1}, "train", count=8)
        card = train(TrainConfig(data=others, out=tmp_path / "n", **options))
        assert card.init
        assert card.init["fresh"]

    def test_pseudo_labels_are_classes_of_the_run(self, tmp_path, models):
        from smoothcert.io.arrays import read_arrays

        data = folder(tmp_path / "d", {"zebra": 0, **{name: k for k, name in enumerate(NAMES) if k}}, "train", count=8)
        options = {**OPTIONS, "epochs": 1, "max_images": 16, "pseudo_labels": f"{models}:turned"}
        with pytest.raises(InputError, match="Use a model that answers with classes of the data"):
            train(TrainConfig(data=data, unlabelled=data, out=tmp_path / "m", **options))
        same = folder(tmp_path / "e", dict(zip(NAMES, range(4), strict=True)), "train", count=8)
        names = ("dog", "cat", "bee", "ant")
        train(TrainConfig(data=same, unlabelled=same, out=tmp_path / "n", classes=names, **options))
        kept = read_arrays(tmp_path / "n" / "pseudo-labels.npz")
        truth = load_data(same, "train", classes=names).labels[kept["indices"]]
        assert np.array_equal(kept["labels"], truth)


@pytest.mark.parametrize(("names", "ordered"), [
    (("class_1", "class_10", "class_2"), ("class_1", "class_2", "class_10")), (("-1", "-10", "2"), ("-10", "-1", "2")),
    (("v1.5", "v1.25"), ("v1.25", "v1.5")), (("1", "01"), None), (("class_1", "group_2"), None), (("ant", "bee"), None),
])
def test_numbers_behind_a_common_beginning_are_numbers(names, ordered):
    assert in_order_of_numbers(names) == ordered
