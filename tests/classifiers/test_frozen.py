"""Files whose text is part of identities: an edit, even of a comment, makes other networks of all that they define."""

import hashlib
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from smoothcert.classifiers import folder
from smoothcert.classifiers.folder import module_hash, source_of
from smoothcert.denoise import DiffusionDenoiser, GaussianDenoiser
from smoothcert.denoise.composed import DenoisedClassifier
from smoothcert.models import build_model
from smoothcert.smoothing.adapters import AdaptedNetwork, Fit
from smoothcert.smoothing.ensemble import Ensemble
from smoothcert.smoothing.protocols import CastInputs
from smoothcert.smoothing.real import RealNetwork

PACKAGE = Path(inspect.getfile(folder)).parents[1]

FROZEN = {
    "models/airbench.py": "03cbed1a39c2c32854fa2452f2090ad6c50617e90b9c88bc881d86b0d17a34d9",
    "models/convolutional.py": "960a4d9d3de049c7f05ccc320609baa3ed52bcabc228ae2292057c41b5863959",
    "models/dense.py": "9fd2bea4c9d7fc3f0d350dd83a35bbe7f62dc11bdf90e6673338368babb1624b",
    "models/hub.py": "83c45102d6112f793d40dee4f6809a6983623a639678f5b2653e190be305e6e6",
    "models/resnet.py": "166f832e64a6a36f9bc9d99c43a76aab2394506245167adca661a58c78a1c390",
    "models/vgg.py": "3433b3c8de322de5b3d8fcba7bb0fe262352eb9d520fb909380954c1d3ed17fd",
    "denoise/closed_forms.py": "e9c38942f85e7b1a73f3dd778f305bb455e6f95923ecbb5105c508ddbe29efe9",
    "denoise/composed.py": "b6cea45a7e93ea9009a9ebdbdeec64c150aace9e7ce25423cff510d473f1ef48",
    "denoise/diffusion.py": "4f3b4d7be8c417ed7c3e5ddb5030dc9f81db734dd00e5406a5968d4e7e0b8a4a",
    "denoise/estimators.py": "2dcb0a6103c284fdf8d5a852ec13092dd61d48e03ac302f6a13066e1d27ffe0b",
    "denoise/networks.py": "645109d440d52390f824452d1b7b02f7fcbbcd6f6debdffbdf590dc01d852757",
    "denoise/walks.py": "39a423a4a74b290f99272e42d1dc15a3c64b382a951087456238e4598ae067c1",
    "smoothing/adapters.py": "e3e4dd51234427d9fbd0faefd22292b49037f5303f36c2806b3fa8e3cb68d5ac",
    "smoothing/ensemble.py": "3e2194d7038bf1ca8522039a5ded1f9e5243ac3e4026aa9f01d97ecfe1f5787c",
    "smoothing/protocols.py": "78711de954faaa57cecebd73a8ca3f47dabb95ae4b7570df866a509cc5c655a2",
    "smoothing/real.py": "9c6a3620dbf3523df25779766ca507f84ba4e34ae7b3ced76a39f67ec95f4b45",
}
"""SHA-256 by path. The last three and models/hub.py define what stands around a network that is not ours."""


@pytest.mark.parametrize("path", FROZEN)
def test_its_text_is_what_stores_were_made_with(path):
    found = hashlib.sha256((PACKAGE / path).read_bytes()).hexdigest()
    assert found == FROZEN[path], (
        f"the text of {path} has changed, and with it the identity of every network that it defines: no store and no "
        f"model directory of such a network can be resumed, and the zoo's certificates are of another network. Undo "
        f"the change where it is one of words or names, and put new code into another file. Where the answers change, "
        f"write so into CHANGELOG.md, make the zoo's entries anew under new names, and put {found} here."
    )


def linear() -> nn.Module:
    return build_model("linear", (1, 2, 2), 3).eval()


@pytest.mark.parametrize(("network", "paths"), [
    (lambda: build_model("resnet20", (3, 8, 8), 3), ["models/resnet.py"]),
    (lambda: AdaptedNetwork(linear(), Fit("logits")), ["smoothing/adapters.py"]),
    (lambda: Ensemble([linear(), linear()]), ["smoothing/ensemble.py"]),
    (lambda: CastInputs(linear().half(), torch.float16), ["smoothing/protocols.py"]),
    (lambda: RealNetwork(build_model("resnet20", (3, 8, 8), 3)), ["smoothing/real.py", "models/resnet.py"]),
    (lambda: DiffusionDenoiser(nn.Identity(), torch.linspace(0.99, 0.01, 20)), ["denoise/diffusion.py"]),
    (lambda: DenoisedClassifier(GaussianDenoiser(1.0), AdaptedNetwork(linear(), Fit("logits")), 0.5),
     ["denoise/composed.py", "denoise/closed_forms.py", "smoothing/adapters.py"]),
])
def test_it_is_part_of_the_identity(network, paths, monkeypatch):
    made = network()
    source, before = source_of(made), module_hash(made)
    assert all((PACKAGE / path).read_bytes() in source for path in paths)
    monkeypatch.setattr(folder, "_text_of", lambda kind: b"another text")
    assert module_hash(made) != before
