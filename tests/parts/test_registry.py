"""Parts by name: smoothcert's own, those of installed packages, and users' own code."""

import hashlib
import json
import runpy
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from smoothcert import SmoothedClassifier
from smoothcert.attacks import ATTACKS, PGD, build_attack
from smoothcert.cli.main import app
from smoothcert.data import load_data
from smoothcert.data.load import DATA, is_own_code
from smoothcert.denoise import DENOISERS, build_denoiser
from smoothcert.errors import CodeError, ConfigError, InputError, ModelError, UnknownNameError
from smoothcert.loggers import LOGGERS
from smoothcert.models import MODELS, build_model
from smoothcert.noise import NOISES, GaussianNoise, NormalNoise, build_noise
from smoothcert.objectives import OBJECTIVES, Gaussian, WholeBatch, build_objective
from smoothcert.report.plots.kinds import KINDS, find_kind
from smoothcert.runs.attack import attack
from smoothcert.runs.certify import certify
from smoothcert.runs.options import AttackConfig, CertifyConfig
from smoothcert.store.recertify import noise_of, recertify
from smoothcert.store.store import read_store
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train

REGISTRIES = (OBJECTIVES, ATTACKS, NOISES, DENOISERS, MODELS, DATA, KINDS, LOGGERS)
PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"

OBJECTIVE = """
from dataclasses import dataclass
from smoothcert.objectives import Loss, WholeBatch
import helper

@dataclass(frozen=True)
class Mine(WholeBatch):
    sigma: float
    power: float = 2.0

    def loss(self, model, images, labels, step):
        return Loss(helper.loss(model(images), labels) ** self.power)
"""
HELPER = "from torch.nn.functional import cross_entropy as loss\n"
NOISE = """
from dataclasses import dataclass
from smoothcert.noise import GaussianNoise

@dataclass(frozen=True)
class Half(GaussianNoise):
    kind = "half"

    def radius(self, bounds, margin=None):
        return super().radius(bounds, margin) / 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OBJECTIVE)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "half.py").write_text(NOISE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "m"
    train(TrainConfig(data="digits", model="linear", sigma=0.25, epochs=1, max_images=200, out=out))
    return out


def certified(model, out, **options):
    return certify(CertifyConfig(model=str(model), max_images=4, n=200, seed=0, out=out, **options))


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


class TestUsersCode:
    def test_a_file_and_a_module_give_the_class(self, folder):
        assert build_objective("mine.py:Mine", 0.5, power=1.0).power == 1.0
        assert build_objective("mine:Mine", 0.5).sigma == 0.5

    def test_its_sources_are_those_that_it_imports_too(self, folder):
        before = OBJECTIVES.sources("mine.py:Mine")
        assert before == {name: hashlib.sha256((folder / f"{name}.py").read_bytes()).hexdigest()
                          for name in ("helper", "mine")}
        (folder / "helper.py").write_text(HELPER + "# changed\n")
        assert OBJECTIVES.sources("mine.py:Mine") != before

    def test_its_label_tells_no_folder(self, folder):
        assert OBJECTIVES.label(str(folder / "mine.py:Mine")) == "mine.py:Mine"
        assert OBJECTIVES.sources(str(folder / "mine.py:Mine")) == OBJECTIVES.sources("mine.py:Mine")

    @pytest.mark.parametrize(("spec", "error", "words"), [
        ("gone.py:Mine", CodeError, "there is no file"),
        ("mine.py:Mien", UnknownNameError, 'did you mean "Mine"'),
        ("no.such.module:Mine", CodeError, "no.such.module cannot be imported"),
        ("broken.py:Mine", CodeError, "ZeroDivisionError"),
    ])
    def test_what_cannot_be_had_is_said(self, folder, spec, error, words):
        (folder / "broken.py").write_text("1 / 0\n")
        with pytest.raises(error, match=words):
            build_objective(spec, 0.5)

    def test_all_that_it_lacks_is_listed(self, folder):
        (folder / "poor.py").write_text("class Poor:\n    pass\n")
        with pytest.raises(InputError, match=r"no dataclass.*no loss, split, trains, prefers"):
            build_objective("poor.py:Poor", 0.5)
        with pytest.raises(InputError, match=r"eps and steps.*start, probe, is_finished"):
            build_attack("poor.py:Poor", eps=1.0)
        with pytest.raises(InputError, match="kind, norm"):
            build_noise("poor.py:Poor", 0.5)
        with pytest.raises(InputError, match="shape, sigma"):
            build_denoiser("poor.py:Poor", (1, 8, 8), 0.5)

    def test_a_configuration_reports_it_with_its_other_mistakes(self, folder):
        with pytest.raises(ConfigError) as caught:
            TrainConfig.parse({"objective": "mine.py:Mien", "epochs": 0, "out": "x"})
        assert len(caught.value.problems) == 2

    def test_a_noise_under_anothers_name_is_refused(self, folder):
        (folder / "half.py").write_text(NOISE.replace('kind = "half"', "pass"))
        with pytest.raises(InputError, match="its kind is 'gaussian'"):
            build_noise("half.py:Half", 0.5)


class TestObjects:
    def test_an_objective_that_is_ready(self):
        ready = Gaussian(sigma=0.5)
        assert build_objective(ready, 0.5) is ready
        with pytest.raises(InputError, match=r"made for sigma 0.5"):
            build_objective(ready, 0.25)

    def test_a_class_of_this_file(self):
        @dataclass(frozen=True)
        class Own(WholeBatch):
            sigma: float

            def loss(self, model, images, labels, step):
                raise NotImplementedError

        assert isinstance(build_objective(Own, 0.5), Own)
        assert set(OBJECTIVES.sources(Own)) == {__name__}

    def test_a_noise_that_is_ready_certifies_as_its_name_does(self):
        def linear(x):
            return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)

        named, ready = (SmoothedClassifier(linear, 0.5, 2, seed=0, noise=noise, space="pixels").certify(
            torch.ones(1, 4, 4), n=500) for noise in ("gaussian", GaussianNoise(0.5)))
        assert named == ready
        with pytest.raises(InputError, match="made for sigma"):
            SmoothedClassifier(linear, 0.25, 2, noise=GaussianNoise(0.5))

    def test_training_with_an_object_is_training_by_name(self, tmp_path):
        options = {"data": "digits", "model": "linear", "epochs": 1, "max_images": 100, "sigma": 0.25}
        train(TrainConfig(objective=Gaussian(0.25), out=tmp_path / "a", **options))
        train(TrainConfig(objective="gaussian", out=tmp_path / "b", **options))
        a, b = ((tmp_path / name / "best.safetensors").read_bytes() for name in "ab")
        assert a == b


class TestRuns:
    def test_training_records_the_code_and_the_values(self, folder):
        options = {"data": "digits", "model": "linear", "epochs": 1, "max_images": 100, "sigma": 0.25, "out": "m",
                   "objective": str(folder / "mine.py:Mine"), "objective_option": {"power": 1.0}}
        train(TrainConfig(**options))
        identity = json.loads((folder / "m" / "model.json").read_text())["identity"]
        assert identity["settings"]["objective"] == "mine.py:Mine"
        assert identity["objective"] == {"sources": OBJECTIVES.sources("mine.py:Mine"),
                                         "values": {"sigma": 0.25, "power": 1.0}}
        (folder / "helper.py").write_text(HELPER + "# changed\n")
        with pytest.raises(Exception, match=r"objective.sources.helper"):
            train(TrainConfig(**options))

    def test_a_noise_with_its_own_theorem(self, folder, model):
        whole = certified(model, folder / "a", noise="gaussian", space="pixels")
        half = certified(model, folder / "b", noise="half.py:Half", space="pixels")
        assert half.column("radius") == pytest.approx(whole.column("radius") / 2)
        assert half.identity.noise.sources == NOISES.sources("half.py:Half")
        store = read_store(folder / "b")
        assert recertify(store, noise="half.py:Half")[0].radius == pytest.approx(half.column("radius"))

    def test_pictures_draw_with_a_noise_that_is_named(self, folder, model):
        certified(model, folder / "s", noise=str(folder / "half.py:Half"))
        for kind in ("projection", "gallery"):
            done = subprocess.run([sys.executable, "-m", "smoothcert", "plot", kind, "s", "--noise", "half.py:Half",
                                   "-o", f"{kind}.png"], cwd=folder, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        done = subprocess.run([sys.executable, "-m", "smoothcert", "plot", "projection", "s", "-o", "no.png"],
                              cwd=folder, check=False, capture_output=True, text=True)
        assert done.returncode == 2
        assert "give the place of that code as noise" in done.stderr

    def test_code_that_a_store_names_is_never_run(self, folder, model):
        certified(model, folder / "s", noise="half.py:Half")
        (folder / "half.py").write_text("open('ran', 'w')\n" + NOISE)
        NOISES._given.clear()  # as in a process in which nobody has named it
        for words in (["verify", "s"], ["recertify", "s"],
                      ["verify", "s", "--resample", 2, "--model", model, "--data", "digits"]):
            result = invoke(*words)
            assert result.exit_code == 2, result.output
            assert "half.py:Half" in result.output
        assert not (folder / "ran").exists()
        with pytest.raises(InputError, match="its code has changed"):
            noise_of(read_store(folder / "s"), "half.py:Half")

    def test_code_that_a_model_folder_names_is_never_run(self, folder):
        (folder / "own.py").write_text(
            "import numpy as np\ndef data(split):\n    return np.zeros((20, 1, 2, 2), 'float32'), np.arange(20) % 2\n")
        train(TrainConfig(data="own.py:data", model="linear", sigma=0.5, epochs=1, out="m"))
        (folder / "own.py").write_text("open('ran', 'w')\n")
        with pytest.raises(ModelError, match="give --data, or read that code"):
            certified("m", folder / "s")
        assert not (folder / "ran").exists()

    def test_verify_draws_again_with_the_parts_given(self, folder, model):
        certified(model, folder / "s", noise="half.py:Half")
        result = invoke("verify", "s", "--resample", 2, "--model", model, "--data", "digits", "--noise", "half.py:Half")
        assert result.exit_code == 0, result.output

    def test_an_attack_runs_its_file_as_often_for_many_images_as_for_few(self, folder, model):
        (folder / "mine.py").write_text("from smoothcert.attacks import PGD as Mine\nopen('runs', 'a').write('x')\n")
        counts = []
        for images in (2, 40):  # one unit of work at each setting, and three
            (folder / "runs").write_text("")
            attack(AttackConfig(model=str(model), attack="mine.py:Mine", eps=(0.5,), m=(1,), steps=(1,), n=(10,),
                                max_images=images, seed=0, out=folder / f"a{images}"))
            counts.append(len((folder / "runs").read_text()))
        assert counts[0] == counts[1]

    def test_processes_open_the_same_parts(self, folder, model):
        one = certified(model, folder / "a", noise="half.py:Half")
        two = certified(model, folder / "b", noise=str(folder / "half.py:Half"), workers=2)
        assert one.identity.raw == two.identity.raw
        assert one.records.equals(two.records)


class TestData:
    def load(self, folder, text):
        (folder / "own.py").write_text("import numpy as np\n" + text)
        return load_data("own.py:data")

    @pytest.mark.parametrize("text", [
        "def data(split):\n    return np.full((3, 1, 2, 2), .5, 'float32'), ['a', 'b', 'a']",
        "data = [(np.full((1, 2, 2), .5, 'float32'), name) for name in 'aba']",
        "from smoothcert.data import from_tensors\n"
        "data = from_tensors(np.full((3, 1, 2, 2), .5, 'float32'), list('aba'))",
    ])
    def test_forms(self, folder, text):
        data = self.load(folder, text)
        assert data.name == "own.py:data"
        assert data.class_names == ("a", "b")
        assert data.labels.tolist() == [0, 1, 0]
        np.testing.assert_array_equal(data.batch([0, 1, 2]), np.float32(0.5))

    @pytest.mark.parametrize(("text", "words"), [
        ("def data(split):\n    raise OSError('no disk')", "OSError: no disk"),
        ("data = 3", "must be ImageData"),
        ("data = [1, 2]", "pairs"),
        ("data = []", "no images"),
        ("data = np.zeros((3, 1, 2, 2))", "without labels: give the pair"),
        ("data = {'train': []}", "a mapping of train, which has no split 'test'"),
    ])
    def test_other_things(self, folder, text, words):
        with pytest.raises(InputError, match=words):
            self.load(folder, text)

    def test_paths_are_no_code(self):
        assert is_own_code("own.py:data")
        assert is_own_code("package.module:data")
        assert not any(is_own_code(spec) for spec in ("parquet:train", "imagefolder:pets", "digits", None))

    def test_a_misspelt_form_is_no_module(self):
        with pytest.raises(UnknownNameError, match="imagefolder:PATH"):
            load_data("imagefoldr:pets")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The template as pip would install it: its modules, and the entry points of its pyproject.toml."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site"
    shutil.copytree(PLUGIN / "src", site)
    info = site / f"smoothcert_extras-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()))
    monkeypatch.syspath_prepend(site)
    return info


class TestPackages:
    def test_its_parts_have_names(self, plugin, tmp_path):
        assert [name for registry in REGISTRIES for name in registry if name not in registry.own_names] == [
            "focal", "sphere-pgd", "tiny", "quartiles"]
        card = train(TrainConfig(data="digits", model="tiny", objective="focal", sigma=0.25, epochs=1, max_images=100,
                                 out=tmp_path / "m"))
        assert set(card.identity["objective"]["sources"]) == {"smoothcert_extras.objectives"}
        assert set(card.identity["sources"]) >= {"smoothcert_extras.models"}
        assert certified(tmp_path / "m", tmp_path / "s").identity.model.sources == card.identity["sources"]
        assert isinstance(build_attack("sphere-pgd", eps=1.0), PGD)
        assert find_kind("quartiles").take == "result"

    def test_the_list_says_where_they_come_from(self, plugin):
        text = invoke("info", "--parts").output
        assert "smoothcert-extras 0.1.0" in text
        rows = json.loads(invoke("info", "--parts", "--json").output)
        assert {row["package"] for row in rows if row["name"] == "focal"} == {"smoothcert-extras 0.1.0"}
        assert {row["name"] for row in rows} >= {name for registry in REGISTRIES for name in registry}

    def test_smoothcerts_names_stay_its_own(self, plugin):
        file = plugin / "entry_points.txt"
        file.write_text(file.read_text().replace("focal =", "gaussian ="))
        assert OBJECTIVES["gaussian"] is Gaussian

    def test_a_broken_package_costs_nothing_before_it_is_asked_for(self, plugin):
        file = plugin / "entry_points.txt"
        file.write_text(file.read_text().replace("objectives:Focal", "gone:Focal"))
        assert "focal" in OBJECTIVES
        assert build_objective("gaussian", 0.5)
        with pytest.raises(CodeError, match=r"focal of the package smoothcert-extras 0.1.0 cannot be imported"):
            build_objective("focal", 0.5)
        assert "cannot be used" in invoke("info", "--parts").output

    def test_two_packages_with_one_name(self, plugin):
        other = plugin.with_name("other-1.dist-info")
        other.mkdir()
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
        (other / "entry_points.txt").write_text("[smoothcert.models]\ntiny = elsewhere:tiny\n")
        with pytest.raises(InputError, match=r"several packages.*elsewhere:tiny"):
            build_model("tiny", (1, 8, 8), 10)

    def test_its_own_tests_pass(self, plugin, monkeypatch):
        tests = runpy.run_path(str(PLUGIN / "tests" / "test_parts.py"))
        tests["test_the_focal_loss_is_the_cross_entropy_at_power_0"]()


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.group)
def test_every_own_part_keeps_its_protocol(registry):
    for name in registry.own_names:
        assert registry.accept(registry[name], name) is registry[name]
        assert registry.identify(name) == {}
    with pytest.raises(UnknownNameError, match="your own"):
        registry["no-such-part"]


def test_a_noise_class_inherits_the_shared_methods():
    assert issubclass(GaussianNoise, NormalNoise)
