"""What is published beside the code: the wheel's metadata, the Dockerfile, and the conda recipe."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from smoothcert.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOME = PROJECT["project"]["urls"]["Homepage"]
CONDA_NAMES = {"matplotlib": "matplotlib-base", "torch": "pytorch"}


@pytest.fixture(scope="module")
def metadata():
    build = pytest.importorskip("hatchling.metadata.core", reason="hatchling builds the wheel")
    pytest.importorskip("hatch_fancy_pypi_readme", reason="the README of PyPI is made by this plugin")
    from hatchling.plugin.manager import PluginManager

    return build.ProjectMetadata(str(ROOT), PluginManager()).core


def test_links_are_absolute_where_the_files_are_not_beside_them(metadata):
    links = re.findall(r"\]\(([^)\s]+)\)", metadata.readme)
    assert links
    assert [link for link in links if not re.match(r"https?://|#", link)] == []
    local = re.findall(r"\]\((?![a-z]+:|#)([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(links) >= {f"{HOME}/blob/main/{link}" for link in local}


def test_the_address_is_one(metadata):
    assert all(url.startswith(HOME) for url in metadata.urls.values())
    recipe = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(recipe)["about"]["homepage"] == HOME


class TestConda:
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))

    def test_it_has_the_versions_of_the_package(self):
        needed = [re.fullmatch(r"([\w-]+)(>=.*)", item) for item in PROJECT["project"]["dependencies"]]
        expected = {f"{CONDA_NAMES.get(m[1], m[1])} {m[2]}" for m in needed if m}
        run = set(self.recipe["requirements"]["run"])
        assert run - {item for item in run if item.startswith("python ")} == expected
        assert self.recipe["context"]["version"] == __version__
        assert f">={self.recipe['context']['python_min']}" == PROJECT["project"]["requires-python"]
        built = {re.sub(r"\s", "", item) for item in self.recipe["requirements"]["host"]}
        assert built >= set(PROJECT["build-system"]["requires"])

    def test_it_keeps_the_form_that_conda_forge_asks_for(self):
        order = ["schema_version", "context", "package", "source", "build", "requirements", "tests", "about", "extra"]
        assert list(self.recipe) == order
        assert self.recipe["build"]["noarch"] == "python"
        assert self.recipe["build"]["python"]["entry_points"] == [
            f"{name} = {place}" for name, place in PROJECT["project"]["scripts"].items()]
        assert (ROOT / self.recipe["about"]["license_file"]).is_file()
        assert self.recipe["about"]["license"] == PROJECT["project"]["license"]
        assert len(self.recipe["source"]["sha256"]) == 64
        assert self.recipe["extra"]["recipe-maintainers"]


def test_the_image_copies_only_what_is_sent_to_it():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line.startswith("!")}
    copied = {word.removeprefix("./") for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M)
              for word in line.split()[:-1]}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    assert len(re.findall(r"^FROM ", text, re.M)) == 2
    assert re.search(r"^USER (?!0|root)", text, re.M)
