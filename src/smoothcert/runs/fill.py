"""A run into its store: what is pending, kept record by record as it is done."""

from collections.abc import Iterator, Sequence

from smoothcert.progress import Progress
from smoothcert.runs.run import Done, Run
from smoothcert.store.provenance import provenance
from smoothcert.store.records import Record
from smoothcert.store.store import Store, StoreWriter, open_store, read_store, record_count


def fill(run: Run, progress: Progress) -> Store:
    """Do what is left of a run; the finished store."""
    with open_store(run.config.out, run.identity, provenance(**run.told)) as store:
        _keep(store, run, progress)
        store.finish()
    return read_store(run.config.out)


def _keep(store: StoreWriter, run: Run, progress: Progress) -> None:
    pending = store.pending()
    total = record_count(run.identity)
    done = total - len(pending)
    progress(done, total, f"resumed, {done} were done" if done else "sampling")
    drawn = 0
    for finished, (position, record, seconds) in enumerate(records_of(run, pending), start=1):
        store.add(position, record, seconds)
        drawn += samples_of(record)
        progress(done + finished, total, _words(drawn, finished * run.most, run.told.get("each_sample")))


def records_of(run: Run, pending: Sequence[int]) -> Iterator[Done]:
    """Every pending record, in the order they are done: here, by several processes, or in a cluster."""
    if run.config.cluster:
        from smoothcert.runs.cluster import by_cluster

        return by_cluster(run, pending)
    if run.config.processes > 1:
        from smoothcert.runs.workers import by_workers

        return by_workers(run, pending)
    return run.records(run.tasks(pending))


def samples_of(record: Record) -> int:
    """Samples drawn for a record: its tallies are cumulative within a stage."""
    return sum({tally.stage: tally.n for tally in record.tallies}.values())


def _words(drawn: int, most: int, cost: str | None) -> str:
    if not most:
        return ""
    saved = f", {1 - drawn / most:.0%} saved by stopping early" if drawn < most else ""
    return f"{_short(drawn)} samples{saved}" + (f", {cost} each" if cost else "")


def _short(count: int) -> str:
    """12.3M for 12,345,678."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
