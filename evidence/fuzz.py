"""100,000 damaged and hostile files to every reader: read, or refused with an error of smoothcert's own.

The readers, the valid files and the edits are those of tests/support/fuzzing.py. Each target runs in processes of its
own: random edits of valid files, and edits that atheris keeps because they reached new code.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from workplace import fresh

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

INPUTS = 100_000
GUIDED = 0.3
"""The share of the inputs that coverage guides."""
COST = {"checkpoint (state.pt)": 0.25, "count file (npz)": 0.5, "count file, bytes changed": 0.5, "shard": 0.5,
        "shard, its hash made anew": 0.5, "weights (safetensors)": 0.6}
"""Readers that take longer get fewer inputs."""
HOW = ("unguided", "guided")
MEMORY = 12 << 30
SECONDS = 900


class Target:
    """One reader, and what became of its inputs."""

    def __init__(self, name: str, folder: Path):
        from fuzzing import CHECKED, READERS

        self.reader, self.folder, self.name = {**READERS, **CHECKED}[name], folder, name
        self.found: Counter[str] = Counter()
        self.slowest = 0.0
        self.truths = [self.reader.same(self.reader.read(content, folder)) for content in self.reader.valid()] \
            if self.reader.same else []

    def feed(self, content: bytes) -> None:
        from fuzzing import outcome

        begun = time.process_time()
        said = outcome(self.reader, content, self.folder)
        self.slowest = max(self.slowest, time.process_time() - begun)
        if said == "read" and self.reader.same and self._read_again(content) not in self.truths:
            said = "silently wrong"
        self.found[said] += 1
        if said not in ("read", "refused") and self.found[said] == 1:
            (self.folder / f"defect-{len(self.found)}").write_bytes(content)

    def _read_again(self, content: bytes) -> Any:
        return self.reader.same(self.reader.read(content, self.folder))

    def report(self, path: Path) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        path.write_text(json.dumps({"found": self.found, "slowest": self.slowest, "peak": peak}))


def unguided(name: str, count: int, folder: Path, path: Path) -> None:
    from fuzzing import mutated

    target, rng = Target(name, folder), Random(f"{name} 1")
    for _ in range(count):
        target.feed(mutated(target.reader, rng))
    target.report(path)


def guided(name: str, count: int, folder: Path, path: Path) -> None:
    """The same with atheris, which never returns."""
    import atheris

    from fuzzing import edited

    target = Target(name, folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for k, content in enumerate(target.reader.valid()):
        (corpus / str(k)).write_bytes(content)

    def mutate(content: bytes, largest: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.3:
            return atheris.Mutate(content, largest)
        return edited(content, target.reader.edits if rng.random() < 0.7 else (), rng)[:largest]

    def one(content: bytes) -> None:
        target.feed(content)
        if sum(target.found.values()) >= count:
            target.report(path)

    largest = 2 * max(map(len, target.reader.valid()))
    atheris.Setup([sys.argv[0], f"-runs={count}", "-seed=1", f"-max_len={largest}", "-rss_limit_mb=0", "-timeout=60",
                   "-verbosity=0", str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def host(how: str, work: Path) -> None:
    """Feed all targets one after the other, each in a process forked from this one, which has imported everything."""
    if how == "guided":
        import atheris

        with atheris.instrument_imports(include=["smoothcert"]):
            import fuzzing
    else:
        import fuzzing
    for name, count in shares(how, [*fuzzing.READERS, *fuzzing.CHECKED]).items():
        folder = place(work, how, name)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)
            {"unguided": unguided, "guided": guided}[how](name, count, folder, folder / "found.json")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not (folder / "found.json").exists():
            said = {"found": {f"the process ended with status {status}": 1}, "slowest": SECONDS, "peak": 0.0}
            (folder / "found.json").write_text(json.dumps(said))


def shares(how: str, names: list[str]) -> dict[str, int]:
    """How many inputs each target gets."""
    each = INPUTS / sum(COST.get(name, 1.0) for name in names) * (GUIDED if how == "guided" else 1 - GUIDED)
    return {name: round(each * COST.get(name, 1.0)) + 1 for name in names}


def place(work: Path, how: str, name: str) -> Path:
    return work / f"{how} {name}".replace(" ", "-").replace("(", "").replace(")", "").replace(",", "")


def main() -> str:
    from fuzzing import CHECKED, READERS

    work = fresh("fuzz")
    logs = {how: open(work / f"{how}.log", "w") for how in HOW}  # noqa: SIM115 - open until the processes end
    for running in [subprocess.Popen([sys.executable, __file__, how, str(work), str(INPUTS)], stdout=log, stderr=log)
                    for how, log in logs.items()]:
        running.wait()
    lines, total, others = [], 0, Counter()
    for name in (*READERS, *CHECKED):
        parts = [json.loads((place(work, how, name) / "found.json").read_text()) for how in HOW]
        found = sum((Counter(part["found"]) for part in parts), Counter())
        read, refused = found.pop("read", 0), found.pop("refused", 0)
        fed = read + refused + sum(found.values())
        total, others = total + fed, others + found
        lines.append(f"| {name} | {fed:,} | {read:,} | {refused:,} | {sum(found.values())} | "
                     f"{max(part['slowest'] for part in parts):.2f} | {max(part['peak'] for part in parts):,.0f} |")
    return page(lines, total, others)


def page(lines: list[str], total: int, others: Counter) -> str:
    from fuzzing import CHECKED

    said = "\n".join(f"- {times} x {what}" for what, times in others.most_common(20)) or "None."
    return "\n".join([
        "# Damaged and hostile files\n",
        f"{total:,} files, made from valid ones by flipping, cutting, inserting and doubling bytes, and by edits that "
        f"know the format (other types, numbers that are too large, lists 100,000 deep, other shapes, headers that "
        f"lie, checksums made anew). {100 * GUIDED:.0f}% of them were chosen by atheris {version('atheris')}, which "
        f"keeps those that reach new code of smoothcert. Each reader ran in processes of its own.\n",
        "| reader | files | read | refused | other | slowest (s of processor time) | peak memory (MB) |",
        "|---|---|---|---|---|---|---|", *lines, "",
        f"*Read*: a valid value came out. *Refused*: an error of smoothcert's own. *Other*: any other exception, a "
        f"crash, or, for files with checksums that were left alone ({'; '.join(CHECKED)}), a result that is not the "
        f"one written. Peak memory includes torch, pyarrow and the other libraries (about 300 MB).\n",
        "Other outcomes:\n", said,
    ]) + "\n"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    asked, folder, inputs = sys.argv[1:]
    INPUTS = int(inputs)
    host(asked, Path(folder))
