"""Who does a run's tasks: this process, several processes of this machine, or a Ray cluster."""

from collections.abc import Iterator, Sequence

from smoothcert.config.sampling import RunConfig
from smoothcert.runs.run import Done, Executor, Run
from smoothcert.runs.travel import check_objects_travel


def here(run: Run, pending: Sequence[int]) -> Iterator[Done]:
    """Do a run's pending records in this process."""
    return run.records(run.tasks(pending))


def executor_of(config: RunConfig) -> Executor:
    """Return the executor that the options ask for; processes and Ray are imported only where they are needed."""
    if config.cluster or config.processes > 1:
        check_objects_travel(config)
    if config.cluster:
        from smoothcert.runs.cluster import by_cluster

        return by_cluster
    if config.processes > 1:
        from smoothcert.runs.workers import by_workers

        return by_workers
    return here
