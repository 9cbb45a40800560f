"""A story: a checkpoint in the published form and a folder of images become a report, in six commands."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from published_nets import FLAGS, NormalizeLayer, resnet20, save_published
from smoothcert.cli.main import app
from smoothcert.store.store import read_store

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SEEN = {"ship": (0.2, 0.3, 0.8), "frog": (0.2, 0.7, 0.2)}
"""The two classes of the folder, and the colour of each."""


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """checkpoint.pth.tar, trained on noisy colours; photos/test/CLASS/*.png; classes.txt with the ten names."""
    tmp_path = tmp_path_factory.mktemp("story")
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = nn.Sequential(NormalizeLayer(), resnet20())
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    colours = torch.tensor(list(SEEN.values())).view(2, 3, 1, 1)
    labels = torch.tensor([NAMES.index(name) for name in SEEN]).repeat(8)
    for _ in range(25):
        images = (colours.expand(2, 3, 32, 32).repeat(8, 1, 1, 1) + 0.25 * torch.randn(16, 3, 32, 32))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    save_published(tmp_path / "checkpoint.pth.tar", network.eval(), "cifar_resnet20")
    for name, colour in SEEN.items():
        place = tmp_path / "photos" / "test" / name
        place.mkdir(parents=True)
        for k in range(3):
            pixels = 255 * np.array(colour) + random.integers(-20, 20, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{k}.png")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    return tmp_path


def test_from_a_published_checkpoint_to_a_report(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert "fits: resnet20 (entry state_dict, names without 1., renamed from torchvision's names)" in run(
        "info", "checkpoint.pth.tar")
    printed = run("certify", "checkpoint.pth.tar", "--model", "resnet20", *FLAGS, "--classes", "classes.txt",
                  "--data", "imagefolder:photos", "--sigma", "0.25", "--n", "200", "--seed", "0", "-q", "-o", "store")
    assert "6 images" in printed
    store = read_store(folder / "store")
    assert store.class_names == NAMES
    assert store.correct.all()
    assert store.column("radius").min() > 0.2
    assert run("table", "store", "--radii", "0.2").count("100.0") >= 1
    assert "nothing is wrong" in run("verify", "store", "--resample", "2", "--model", "checkpoint.pth.tar", "--network",
                                     "resnet20", *FLAGS)  # the images are where the run found them
    monkeypatch.chdir("/")
    assert "nothing is wrong" in run("verify", folder / "store", "--resample", "1", "--model",
                                     folder / "checkpoint.pth.tar", "--network", "resnet20", *FLAGS)
    monkeypatch.chdir(folder)
    run("report", "store", "--data", "imagefolder:photos", "-o", "report.html")
    page = (folder / "report.html").read_text()
    assert "ship" in page
    assert "checkpoint.pth.tar" in page


def test_verify_asks_for_images_that_are_nowhere(folder, tmp_path):
    run("certify", folder / "checkpoint.pth.tar", "--model", "resnet20", *FLAGS, "--classes", folder / "classes.txt",
        "--data", f"imagefolder:{folder / 'photos'}", "--sigma", "0.25", "--n", "20", "--max-images", "1", "--seed",
        "0", "-q", "-o", tmp_path / "1/2/3/4/store")
    (tmp_path / "1/2/3/4/store/.source.json").unlink()
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "1/2/3/4/store"), "--resample", "1", "--model",
                                      str(folder / "checkpoint.pth.tar"), "--network", "resnet20", *FLAGS])
    assert result.exit_code != 0
    assert "imagefolder:photos, and nothing says where they are: give --data" in result.output


@pytest.mark.parametrize("verb", [
    ("predict", "--n", "100"), ("attack", "--eps", "0.1", "--m", "2", "--steps", "2", "--n", "100"),
    ("distributional", "--n", "100"),
])
def test_every_verb_takes_weights(folder, monkeypatch, verb):
    monkeypatch.chdir(folder)
    run(verb[0], "checkpoint.pth.tar", "--model", "resnet20", *FLAGS, "--classes", "classes.txt", "--max-images", "2",
        "--data", "imagefolder:photos", "--sigma", "0.25", "--seed", "0", "-q", "-o", verb[0], *verb[1:])
    assert "nothing is wrong" in run("verify", verb[0], "--resample", "1", "--model", "checkpoint.pth.tar", "--network",
                                     "resnet20", *FLAGS, "--data", "imagefolder:photos")


def test_the_error_of_a_missing_name_says_what_to_do(folder, monkeypatch):
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["certify", "checkpoint.pth.tar", "--data", "imagefolder:photos", "-o", "none"])
    assert result.exit_code == 2
    assert "calls its network cifar_resnet20. Its names and shapes fit resnet20" in result.output
    assert not Path("none").exists()
