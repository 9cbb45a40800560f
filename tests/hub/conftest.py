import logging
from pathlib import Path

import pytest

import smoothcert
from hub_server import TOKEN, StandIn, stand_in

logging.getLogger("werkzeug").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A model directory, and beside it the store of its certificates and a store of predictions."""
    folder = tmp_path_factory.mktemp("hub")
    smoothcert.train("linear", "digits", out=folder / "m", sigma=0.25, epochs=2)
    smoothcert.certify(str(folder / "m"), out=folder / "s", n=1000, max_images=20, seed=0)
    smoothcert.predict(str(folder / "m"), out=folder / "p", n=100, max_images=5, seed=0)
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path) -> StandIn:
    """A stand-in for the hub, a token, and a client that sends large files to it."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another protocol, which a stand-in lacks
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
