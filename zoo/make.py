"""Make an entry of the zoo from a trained model directory, and certify it.

    python zoo/make.py SOURCE NAME --every 100 --radii 0,0.25,0.5

writes zoo/NAME: the model directory with int8 weights, README.md, and as `certificates` the store of

    smoothcert certify zoo:NAME --every 100 --radii 0,0.25,0.5 --n-max 100000 --seed 0

It says on the way how far the entry and the trained network agree under noise. An interrupted run goes on when the same
command is given again. Last, docs/results/zoo.md is written from all entries.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from smoothcert.classifiers.folder import ModelCard, read_network, write_compact_model
from smoothcert.data import load_data
from smoothcert.io.files import make_folder, write_text
from smoothcert.io.paths import CERTIFICATES, zoo_dir
from smoothcert.report.shown import render
from smoothcert.results.base import Points
from smoothcert.results.certified import Result
from smoothcert.results.gather import put_side_by_side
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.store.source import NAME as SOURCE
from smoothcert.store.store import Store

MOST_BYTES = 3_000_000
"""Weights of an entry; a repository keeps every version for ever."""
TRIED = 1000
"""Images on which an entry and the trained network are compared, each with noise drawn once."""


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="model directory of `smoothcert train`")
    parser.add_argument("name", help="of the entry: data set, network, sigma, such as mnist-lenet-0.5")
    parser.add_argument("--radii", required=True, help="radii to decide, such as 0,0.25,0.5")
    parser.add_argument("--every", type=int, default=100, help="certify every N-th test image (default: 100)")
    parser.add_argument("--n-max", type=int, default=100_000, help="samples an image at most (default: 100000)")
    parser.add_argument("--dtype", default="int8", help="stored weights: int8 or bf16 (default: int8)")
    parser.add_argument("--note", help="what a reader of the figures has to know besides")
    parser.add_argument("--workers", type=int, help="processes; never changes results")
    given = parser.parse_args(words)
    entry = zoo_dir() / given.name
    card = write_compact_model(given.source, entry, given.dtype)
    size = weight_bytes(entry)
    if size > MOST_BYTES or card.sigma is None:
        sys.exit(f"{entry}: an entry of the zoo has at most {MOST_BYTES:,} bytes of weights, here {size:,}, and was "
                 f"trained at a sigma, here {card.sigma}: try another --dtype or a smaller network")
    agreed = agreement(given.source, entry, card, card.sigma)
    print(agreed, flush=True)
    options = {"every": given.every, "radii": given.radii, "n_max": given.n_max, "seed": 0}
    store = certify(CertifyConfig.gather({"model": f"zoo:{given.name}", **options, "workers": given.workers,
                                          "out": entry / CERTIFICATES}), verbose=True)
    (entry / CERTIFICATES / SOURCE).unlink(missing_ok=True)  # the folders of the machine that made the entry
    command = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    lines = [f"# {given.name}", described(card, size), agreed, f"`smoothcert certify zoo:{given.name} {command}`:",
             table(given.name, store), *([given.note] if given.note else [])]
    write_text(entry / "README.md", "\n\n".join(lines) + "\n")
    results = zoo_dir().parent / "docs" / "results"
    make_folder(results)
    write_text(results / "zoo.md", page())
    print(f"wrote {entry} and {results / 'zoo.md'}")


def weight_bytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.rglob("*.safetensors"))


def agreement(source: Path, entry: Path, card: ModelCard, sigma: float) -> str:
    """Say how often the entry answers as the trained network does, and how often either is right, under noise."""
    data = load_data(card.data["data"], "test", resize=card.data["resize"], crop=card.data["crop"],
                     classes=card.class_names)
    chosen = np.unique(np.linspace(0, len(data) - 1, TRIED).round().astype(int))
    generator = torch.Generator().manual_seed(0)
    networks = [read_network(folder)[0] for folder in (source, entry)]
    answers: list[list[torch.Tensor]] = [[], []]
    with torch.no_grad():
        for part in np.array_split(chosen, 20):
            images = torch.from_numpy(data.batch(part.tolist()))
            noisy = images + sigma * torch.randn(images.shape, generator=generator)
            for network, found in zip(networks, answers, strict=True):
                found.append(network(noisy).argmax(1))
    trained, stored = (torch.cat(found).numpy() for found in answers)
    right = data.labels[chosen]
    return (f"On {len(chosen):,} test images, each with noise of sigma {sigma:g} drawn once, it gives the trained "
            f"network's answer to {100 * (trained == stored).mean():.1f} %. Of its answers "
            f"{100 * (stored == right).mean():.1f} % are right, of the trained network's "
            f"{100 * (trained == right).mean():.1f} %.")


def described(card: ModelCard, size: int) -> str:
    """Say what the entry is, and what it was made from."""
    origin = card.identity["compact"]
    return (f"`{card.model}`, {card.parameters:,} parameters, trained on {card.data['data']} at sigma {card.sigma:g} "
            f"(epochs: {card.epochs_done}). The weights are {origin['dtype']} ({size / 1e6:.2f} MB), made from a file "
            f"with SHA-256 `{origin['sha256']}`.")


def table(name: str, store: Store) -> str:
    """The certified accuracies of an entry's store, in Markdown."""
    result = Result.of(store, name)
    return render([put_side_by_side([result], Points(result.decided or (0.0,), intervals="all"))], "markdown")


def page() -> str:
    """What all entries say of themselves, one below the other."""
    told = (f"#{path.read_text(encoding='utf-8')}" for path in sorted(zoo_dir().glob("*/README.md")))
    return "\n".join(["# The zoo's certificates\n\nHow to use these networks: [The zoo](../zoo.md).\n", *told])


if __name__ == "__main__":
    main()
