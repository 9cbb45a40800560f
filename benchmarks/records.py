"""`smoothcert table`, `report` and `recertify` of a store of a million records, each in its own process (Linux)."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import memory
from pages import Section, section, table
from timing import spread

RECORDS, ROUNDS = 1_000_000, 3
TITLES = {"reference": "all columns by `pyarrow.parquet.read_table`, SHA-256", "table": "`smoothcert table`",
          "report": "`smoothcert report --no-gallery`", "recertify": "`smoothcert recertify --top-k 3`",
          "recertify and write": "`smoothcert recertify --top-k 3 -o STORE`"}
"""What is measured."""


def main(figures: dict[str, float]) -> Section:
    from many import CLASSES, SHARD, N, write_many

    with tempfile.TemporaryDirectory() as folder:
        store, page = Path(folder) / "store", Path(folder) / "report.html"
        write_many(store, RECORDS)
        stored = sum(file.stat().st_size for file in store.iterdir()) / 1e6
        rounds = [{name: in_a_process(name, store, page, Path(folder) / f"again-{k}") for name in TITLES}
                  for k in range(ROUNDS)]
        size = page.stat().st_size / 1e6
    taken, clock, peak = ({name: spread([one[name][k] for one in rounds]) for name in TITLES} for k in range(3))
    times = {name: spread([one["reference"][0] / one[name][0] for one in rounds]) for name in TITLES}
    rows = [[title, f"{taken[name]:.1f}", f"{clock[name]:.1f}", f"{times[name]:.2f}", f"{peak[name].median:.0f}"]
            for name, title in TITLES.items()]
    header = ["work", "processor, s", "clock, s", "times the reference's speed", "peak, MiB"]
    notes = [f"{RECORDS:,} records of {CLASSES} classes, n = {N:,}, in shards of {SHARD}: {stored:.0f} MB. Whole "
             f"processes, from the start of Python on; medians of {ROUNDS} interleaved rounds, with the least and the "
             f"greatest. Peak: resident memory of the whole process (VmHWM). The page has {size:.1f} MB."]
    return section("A store of a million records", [*table(header, rows), *notes],
                   {"table s": clock["table"].median, "report s": clock["report"].median, "report MB": size,
                    "recertify s": clock["recertify"].median,
                    "table over reading all": times["table"].median})


def in_a_process(name: str, store: Path, page: Path, again: Path) -> list[float]:
    """What `TITLES` says of `name`, in a process of its own: [processor s, clock s, MiB at the peak]."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, name, str(store), str(page), str(again)], check=True,
                          stdout=subprocess.PIPE, text=True)
    clock = time.perf_counter() - started
    processor, peak = json.loads(done.stdout.splitlines()[-1])
    return [processor, clock, peak]


def reference(store: str) -> None:
    """What a plain reader does before it can use a store it does not trust."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for shard in json.loads((Path(store) / "manifest.json").read_text())["shards"]:
        path = Path(store) / shard["name"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != shard["sha256"]:
            raise ValueError(f"{path} has changed")
        tables.append(pq.read_table(path))
    pa.concat_tables(tables)


def smoothcert(*arguments: str) -> None:
    from smoothcert.cli.main import app

    app(list(arguments), standalone_mode=False)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    work, given_store, given_page, given_again = sys.argv[1:]
    if work == "reference":
        reference(given_store)
    else:
        options = {"table": [], "report": ["--no-gallery", "-o", given_page], "recertify": ["--top-k", "3"],
                   "recertify and write": ["--top-k", "3", "-o", given_again]}
        smoothcert(work.split()[0], given_store, *options[work])
    print(json.dumps([time.process_time(), memory("VmHWM")]))
