"""What makes two base classifiers one: a run goes on with the one that it began with, and never with another."""

import json
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

from smoothcert import SmoothedClassifier
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.classifiers.folder import module_hash
from smoothcert.errors import IdentityError, InputError, ModelError, SmoothcertError
from smoothcert.runs.attack import attack
from smoothcert.runs.certify import certify, predict, prepare_sampling
from smoothcert.runs.distributional import distributional
from smoothcert.runs.options import AttackConfig, CertifyConfig, DistributionalConfig, PredictConfig
from smoothcert.runs.run import open_again
from smoothcert.smoothing.content import attributes_hash, attributes_of, fingerprint, keep_equal
from smoothcert.smoothing.protocols import evaluation
from smoothcert.store.comparison import AGREEMENT, differences
from smoothcert.store.store import read_store
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

HEAD = "import torch\nfrom torch import nn\n"
LINEAR = "torch.manual_seed(0)\n    last = nn.Linear(64, 10)\n"


class Stopped(BaseException):
    pass


def stop_at(count: int):
    def progress(event):
        if event.phase == "sampling" and event.done == count:
            raise Stopped

    return progress


def write(folder: Path, **files: str) -> str:
    """Write modules into a folder; the spec of `build` in net.py."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + textwrap.dedent(text))
    return f"{folder / 'net.py'}:build"


def options(spec: str, out: Path, **more) -> dict:
    return {"model": spec, "data": "digits", "sigma": 0.25, "n": 200, "max_images": 4, "seed": 0, "out": out, **more}


def certified(spec: str, out: Path, stop: int | None = None, **more):
    config = CertifyConfig.parse(options(spec, out, **more))
    return certify(config) if stop is None else certify(config, stop_at(stop))


def interrupted(spec: str, out: Path, **more) -> None:
    with pytest.raises(Stopped):
        certified(spec, out, stop=2, **more)


NORMALISED = """
    import settings

    class Normalise(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.sd = settings.MEAN, [settings.SD]

        def forward(self, x):
            return (x - self.mean) / self.sd[0]

    def build():
        torch.manual_seed(0)
        return nn.Sequential(Normalise(), nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.parametrize(("before", "after"), [
    ("MEAN, SD = .4, .3", "MEAN, SD = .4, .30001"),
    ("MEAN, SD = .4, .3", "MEAN, SD = .4, .3  # a comment"),
])
def test_a_run_does_not_go_on_where_an_imported_file_changed(tmp_path, before, after):
    spec = write(tmp_path, net=NORMALISED, settings=before)
    interrupted(spec, tmp_path / "s")
    assert certified(spec, tmp_path / "t").identity.model.sources.keys() == {"net", "settings"}
    (tmp_path / "settings.py").write_text(after)
    with pytest.raises(IdentityError, match=r"model\.sources\.settings.*\n.*|One store holds one model"):
        certified(spec, tmp_path / "s")
    (tmp_path / "settings.py").write_text(HEAD + before)
    assert certified(spec, tmp_path / "s").complete


def test_hidden_settings_are_in_attributes_or_answers(tmp_path):
    """The file is JSON, so no import tells of it: once kept on the layer, once as a global that forward reads."""
    kept = NORMALISED.replace("import settings", "import json, pathlib\n    from types import SimpleNamespace\n"
                              "    settings = SimpleNamespace(**json.loads(pathlib.Path(__file__).with_name('s.json')"
                              ".read_text()))")
    hidden = kept.replace("self.mean) /", "settings.MEAN) /").replace("settings.MEAN, [", "0, [", 1)
    for name, text, field in (("kept", kept, "attributes"), ("hidden", hidden, "answers")):
        spec = write(tmp_path / name, net=text)
        (tmp_path / name / "s.json").write_text('{"MEAN": 0.4, "SD": 0.3}')
        interrupted(spec, tmp_path / name / "s")
        (tmp_path / name / "s.json").write_text('{"MEAN": 0.45, "SD": 0.3}')
        with pytest.raises(IdentityError, match=rf"model\.{field}"):
            certified(spec, tmp_path / name / "s")


def test_imports_are_followed_through_packages_and_functions(tmp_path, monkeypatch):
    files = {
        "net": "from lib.deep import layer\nimport numpy\ndef build():\n    import late\n    return layer.make()",
        "late": "", "lib.__init__": "", "lib.deep.__init__": "from . import sibling",
        "lib.deep.sibling": "from ..shallow import *", "lib.shallow": "import importlib\n"
        "named = importlib.import_module('called')", "called": "",
        "lib.deep.layer": f"def make():\n    {LINEAR}    return nn.Sequential(nn.Flatten(), last)", "unused": "",
    }
    write(tmp_path, **files)
    sources = open_classifier(f"{tmp_path / 'net.py'}:build", (1, 8, 8), 10).identity["sources"]
    assert set(sources) == {"net", "late", "lib", "lib.deep", "lib.deep.sibling", "lib.shallow", "called",
                            "lib.deep.layer"}
    monkeypatch.chdir(tmp_path)
    assert open_classifier("net:build", (1, 8, 8), 10).identity["sources"] == sources
    inner = open_classifier("lib.deep.layer:make", (1, 8, 8), 10).identity["sources"]
    assert {"lib", "lib.deep", "lib.deep.layer", "lib.shallow"} <= set(inner)
    assert "net" not in inner


def test_a_changed_helper_is_imported_again_in_the_same_process(tmp_path):
    spec = write(tmp_path, net=NORMALISED, settings="MEAN, SD = .4, .3")
    image = torch.full((1, 1, 8, 8), 0.5)
    first = open_classifier(spec, (1, 8, 8), 10).model(image)
    write(tmp_path, settings="MEAN, SD = .1, .3")
    assert not torch.equal(open_classifier(spec, (1, 8, 8), 10).model(image), first)


def test_a_factory_of_what_is_smoothed_already_is_refused(tmp_path):
    spec = write(tmp_path / "src", net="""
        from smoothcert import SmoothedClassifier

        def build():
            return SmoothedClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), 0.25, 10)
        """)
    with pytest.raises(ModelError, match=r"SmoothedClassifier already: give the model in it"):
        certified(spec, tmp_path / "store")


def test_a_model_folder_of_a_users_network_tells_its_sources(tmp_path):
    text = NORMALISED.replace("def build", "def build(num_classes=10)").replace("()():", "():")
    spec = write(tmp_path, net=text.replace("build(num_classes=10)()", "build()"), settings="MEAN, SD = .4, .3")
    told = {"data": "digits", "model": spec, "sigma": 0.25, "epochs": 1, "max_images": 64, "out": tmp_path / "m"}
    train(TrainConfig.parse(told))
    interrupted(str(tmp_path / "m"), tmp_path / "s", trust=True)
    write(tmp_path, settings="MEAN, SD = .4, .31")
    with pytest.raises(IdentityError, match=r"model\.sources\.settings"):
        certified(str(tmp_path / "m"), tmp_path / "s", trust=True)
    with pytest.raises(IdentityError, match=r"sources\.settings"):
        train(TrainConfig.parse({**told, "epochs": 2}))


ESTIMATOR = """
    class Estimator:
        def predict_proba(self, rows):
            return (torch.from_numpy(rows) @ torch.arange(640.).reshape(64, 10).sin()).softmax(1).numpy()

    def build():
        return Estimator()
"""


@pytest.mark.parametrize("run", ["certify", "predict", "distributional", "attack"])
def test_a_probed_model_resumes_only_when_it_is_named(tmp_path, run):
    spec, out = write(tmp_path, net=ESTIMATOR), tmp_path / "s"
    kinds = {"certify": (certify, CertifyConfig, {}), "predict": (predict, PredictConfig, {}),
             "distributional": (distributional, DistributionalConfig, {"loss": "clipped"}),
             "attack": (attack, AttackConfig, {"attack": "stein", "eps": [0.1], "steps": [1], "m": [2],
                                               "max_images": 20})}
    function, config, more = kinds[run]
    asked = {**options(spec, out), **more}
    with pytest.raises(Stopped):
        function(config.parse(asked), stop_at(2 if run != "attack" else 16))
    with pytest.raises(IdentityError, match="--model-id"):
        function(config.parse(asked))
    assert function(config.parse({**asked, "model_id": "sines-1"})).complete
    assert read_store(out).identity.model.id == "sines-1"
    assert function(config.parse({**asked, "model_id": "sines-1"})).complete
    with pytest.raises(IdentityError, match=r"model\.by"):
        function(config.parse(asked))


def test_a_name_does_not_vouch_for_another_code_or_other_answers(tmp_path):
    spec = write(tmp_path, net=ESTIMATOR)
    interrupted(spec, tmp_path / "s")
    interrupted(spec, tmp_path / "named", model_id="sines")
    write(tmp_path, net=ESTIMATOR.replace("sin()", "cos()"))
    for name in ("s", "named"):
        with pytest.raises(IdentityError, match=r"model\.sources\.net[^*]*model\.answers"):
            certified(spec, tmp_path / name, model_id="sines")


def test_a_finished_run_may_be_asked_for_again(tmp_path):
    spec = write(tmp_path, net=ESTIMATOR)
    certified(spec, tmp_path / "s")
    assert certified(spec, tmp_path / "s").complete


def test_answers_are_compared_within_rounding():
    model = {"by": "probe", "sha256": "a", "answers": [1.0, -200.0, 0.0]}
    near = {"by": "probe", "sha256": "b", "answers": [1.0 + 190 * AGREEMENT, -200.0 * (1 + 1e-6), 1e-6]}
    far = {**near, "answers": [1.0 + 210 * AGREEMENT, -200.0, 0.0]}
    assert not differences({"model": model}, {"model": near})
    assert set(differences({"model": model}, {"model": far})) == {"model.answers"}
    assert set(differences({"model": {**model, "by": "module"}}, {"model": {**near, "by": "module"}})) == {
        "model.sha256"}


def test_workers_and_resumes_may_round_differently(tmp_path, monkeypatch):
    """As on another processor, the model answers 1e-6 off; then 1e-3 off, as another model does."""
    spec = write(tmp_path, net="import os\n" + textwrap.dedent(ESTIMATOR).replace(
        "rows) @", "rows * float(os.environ.get('SCALE', 1))) @"))
    config = CertifyConfig.parse(options(spec, tmp_path / "s", model_id="x"))
    run = prepare_sampling(config, config.plan)
    interrupted(spec, tmp_path / "s", model_id="x")
    monkeypatch.setenv("SCALE", "1.000001")
    assert open_again(run.reopen(), run.identity).identity != run.identity
    assert certified(spec, tmp_path / "s", model_id="x").identity == run.identity
    monkeypatch.setenv("SCALE", "1.001")
    with pytest.raises(SmoothcertError, match=r"differ in model\.answers"):
        open_again(run.reopen(), run.identity)


def test_older_stores_are_read_but_not_resumed(tmp_path):
    """A store as it was before sources, attributes and answers were kept."""
    spec = write(tmp_path, net=NORMALISED, settings="MEAN, SD = .4, .3")
    for name, stop in (("whole", None), ("part", 2)):
        if stop:
            interrupted(spec, tmp_path / name)
        else:
            certified(spec, tmp_path / name)
        path = tmp_path / name / "manifest.json"
        manifest = json.loads(path.read_text())
        for field in ("sources", "attributes", "answers"):
            del manifest["identity"]["model"][field]
        del manifest["sha256"]
        path.write_text(json.dumps({**manifest, "version": 1}))
    assert read_store(tmp_path / "whole").complete
    found = verify(VerifyConfig.parse({"store": tmp_path / "whole", "model": spec, "data": "digits", "resample": 2}))
    assert not found.problems
    with pytest.raises(IdentityError, match="begun by a smoothcert that did not record"):
        certified(spec, tmp_path / "part")


@pytest.mark.parametrize("change", [{"model": None}, {"seed": None}])
def test_a_manifest_without_compared_parts_is_another_run(tmp_path, change):
    spec = write(tmp_path, net=NORMALISED, settings="MEAN, SD = .4, .3")
    interrupted(spec, tmp_path / "s")
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["identity"].update(change)
    del manifest["sha256"]
    path.write_text(json.dumps({**manifest, "version": 1}))
    asked = options(spec, tmp_path / "s")
    del asked["seed"]
    with pytest.raises(IdentityError, match=f"- {next(iter(change))}"):
        certify(CertifyConfig.parse(asked))


def test_our_own_networks_keep_their_identity(tmp_path):
    train(TrainConfig.parse({"data": "digits", "model": "linear", "sigma": 0.25, "epochs": 1, "max_images": 64,
                               "out": tmp_path / "m"}))
    assert set(open_classifier(str(tmp_path / "m"), (1, 8, 8), 10).identity) == {"by", "sha256"}


class Settings:
    def __init__(self, value):
        self.value, self.lock, self.nothing = value, object(), open


def net(value, **attributes) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    network[1].setting = value
    for name, more in attributes.items():
        setattr(network, name, more)
    return network


def lambda_of(k):
    return lambda x: x * k


@pytest.mark.parametrize(("first", "second"), [
    (0.1, np.nextafter(0.1, 1)), ("a", "b"), ((1, 2), (1, 3)), ([1], [1, 1]), ({"a": 1}, {"a": 2}), ({1}, {2}),
    (torch.zeros(2), torch.tensor([0.0, 1.0])), (np.zeros(2), np.ones(2)), (np.float32(1), np.float32(2)),
    (Settings(1), Settings(2)), ([{"a": Settings(torch.zeros(1))}], [{"a": Settings(torch.ones(1))}]),
    (lambda_of(2), lambda_of(3)), (lambda x: x + 1, lambda x: x * 1), (np.sin, np.cos), (torch.relu, torch.sigmoid),
    ([nn.Linear(1, 1)], [nn.Linear(1, 1)]), (True, False), (None, 0), (torch.float32, torch.float64),
    (torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, 2.0)),
])
def test_attributes_that_differ_are_seen(first, second):
    assert attributes_hash(attributes_of(net(first))) != attributes_hash(attributes_of(net(second)))
    assert fingerprint(net(first)) != fingerprint(net(second))


def test_what_a_network_holds_beside_plain_attributes_is_seen():
    def changed(change) -> str:
        network = net(1)
        change(network)
        return attributes_hash(attributes_of(network))

    def conv(**options):
        return lambda network: network.append(nn.Conv2d(1, 1, 1, **options))

    def buffer(value):
        return lambda network: network.register_buffer("hidden", torch.tensor([value]), persistent=False)

    found = [changed(change) for change in (
        lambda network: None, conv(), conv(padding=1), conv(stride=2), buffer(1.0), buffer(2.0),
        lambda network: network.register_forward_hook(lambda_of(1)), lambda network: network.append(nn.LeakyReLU(0.1)),
        lambda network: network.append(nn.LeakyReLU(0.2)), lambda network: setattr(network[1], "forward", lambda_of(1)),
    )]
    assert len(set(found)) == len(found)


def test_what_belongs_to_a_process_is_left_out(tmp_path):
    """Two processes, two folders, one model."""
    text = """
        import datetime, itertools, os, pathlib, tempfile, threading, time, uuid, random

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.last = nn.Linear(64, 10)
                self.created, self.seconds, self.nanos = time.time(), int(time.time()), time.time_ns()
                self.stamp, self.iso = datetime.datetime.now(), datetime.datetime.now().isoformat()
                self.me, self.words = id(self), repr(object())
                self.lock, self.file, self.key = threading.Lock(), open(__file__), uuid.uuid4()
                self.here, self.text = pathlib.Path(__file__), str(pathlib.Path(__file__))
                self.rng, self.torch_rng, self.count = random.Random(), torch.Generator(), itertools.count()
                self.names = {"a", "b", "c", "d", "e"}
                self.parts = [self.last]
                self.calls, self.cache = 0, {}

            def forward(self, x):
                self.calls += 1
                self.cache[self.calls] = x.sum().item() * time.time()
                return self.last(x.flatten(1))

        def build():
            return Net()
    """
    code = ("import json, sys; from smoothcert.classifiers.classifier import open_classifier;"
            "print(json.dumps(open_classifier(sys.argv[1], (1, 8, 8), 10).identity))")
    found = [subprocess.run([sys.executable, "-c", code, write(tmp_path / name, net=text)], check=True,
                            capture_output=True, text=True).stdout for name in ("a", "b")]
    assert found[0] == found[1]
    assert json.loads(found[0])["by"] == "module"


def test_what_a_forward_pass_changes_is_no_setting():
    assert keep_equal({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"3", "c": b"4"}) == {"a": b"1"}


def test_cycles_and_objects_that_refuse_do_no_harm():
    class Refuses:
        @property
        def __dict__(self):
            raise RuntimeError

        def __iter__(self):
            raise RuntimeError

    ring: list = []
    ring.append(ring)
    first = attributes_hash(attributes_of(net(ring, other=Refuses())))
    again: list = []
    again.append(again)
    assert first == attributes_hash(attributes_of(net(again, other=Refuses())))


def test_module_hash_takes_any_extra_state():
    class Extra(nn.Linear):
        def __init__(self, value):
            super().__init__(2, 2)
            self.value = value

        def get_extra_state(self):
            return {"value": self.value, "scales": (torch.ones(2), 3)}

        def set_extra_state(self, state):
            self.value = state["value"]

    torch.manual_seed(0)
    first, second = Extra(1), Extra(2)
    second.weight, second.bias = first.weight, first.bias
    assert module_hash(first) != module_hash(second)
    second.value = 1
    assert module_hash(first) == module_hash(second)


def quantised() -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)


def int8_graph() -> nn.Module:
    """Of the graph mode of torch.ao, with calibrated activations and a packed weight that is no parameter."""
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.randn(10, 64))

        def forward(self, images):
            return nn.functional.linear(images.flatten(1), self.weight)

    images = (torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = quantize_fx.prepare_fx(Functional().eval(), get_default_qconfig_mapping("x86"), images)
        prepared(*images)
        return quantize_fx.convert_fx(prepared)


def program() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    sizes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=sizes).module()


class Within(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.drop = program(), nn.Dropout()

    def forward(self, images):
        return self.drop(self.inner(images))


@pytest.mark.parametrize("make", [quantised, int8_graph, program])
def test_networks_without_parameters_are_hashed_and_certified(make, monkeypatch):
    """Quantised layers, and what torch.export made, which refuses `eval()`."""
    network, again = make(), make()
    assert module_hash(network) == module_hash(again)
    assert fingerprint(network) == fingerprint(again)
    seed = torch.manual_seed
    with monkeypatch.context() as patch:
        patch.setattr(torch, "manual_seed", lambda number: seed(number + 1))
        other = make()
    assert module_hash(network) != module_hash(other)
    assert fingerprint(network) != fingerprint(other)
    for how in ({"engine": "eager"}, {"engine": "plain"}, {"noise": "gaussian"}):
        found = SmoothedClassifier(network, 0.25, 10, seed=0, **how).certify(torch.full((1, 8, 8), 0.5), n=100)
        assert sum(found.estimation) == 100


def test_a_program_within_a_network_is_put_in_eval_mode_with_it():
    with evaluation(network := Within()):
        assert not any(part.training for part in network.modules())
        assert torch.equal(network(torch.ones(1, 1, 8, 8)), network(torch.ones(1, 1, 8, 8)))
    assert network.drop.training


def test_quantised_networks_are_not_taken_in_bfloat16():
    with pytest.raises(InputError, match="precision 'float32'"):
        SmoothedClassifier(int8_graph(), 0.25, 10, precision="bf16").certify(torch.zeros(1, 8, 8), n=100)
