"""Checks that a store's records are what its identity says: the images, the settings, the looks that its procedure
takes, and every answer computed again from its votes. The procedure is the run's own (`smoothcert.stats.plans`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from smoothcert.errors import InputError, StoreError
from smoothcert.runs.settings import list_ascents, list_attacks
from smoothcert.stats import ABSTAIN, Draw, History, Look, Plan, is_same, predict_plan
from smoothcert.stats.histories import count_samples
from smoothcert.stats.transfer import split
from smoothcert.store import store as stores
from smoothcert.store.identity import Identity
from smoothcert.store.intervals import plan_of
from smoothcert.store.multi_label import plan_of_labels
from smoothcert.store.recertify import noise_of, rebuild_plan
from smoothcert.store.records import histories
from smoothcert.store.store import Store
from smoothcert.verify.files import Readable, StoreCheck


@dataclass(frozen=True, eq=False)
class RecordPart:
    """Some records in a row: `positions` (m,) in the run's list, and their `table`."""

    positions: np.ndarray
    table: pa.Table

    @cached_property
    def index(self) -> list[int]:
        return self.table.column("index").to_pylist()

    def name(self, row: int) -> str:
        return f"record {self.positions[row]} (image {self.index[row]})"


@dataclass(frozen=True)
class RecordTerms:
    """The terms that an identity sets for the records.

    Attributes:
        per_image: records of each image.
        plan: what is drawn for a record and what its votes mean; None where there are no votes.
        draws, judges: whether the plan took the looks (not where its answers were computed again at another alpha or
            method from looks that stopped by the first one's), and whether it gave the answers.
    """

    per_image: int
    num_classes: int
    plan: Plan | None
    draws: bool
    judges: bool


def terms_of(readable: Readable, noise: Any = None) -> RecordTerms:
    """Return the terms of a store, whose noise has to be given where it is a user's own.

    Raises StoreError for an identity that is no run's, InputError where the noise is missing or another one.
    """
    identity = readable.identity
    if noise is not None or identity.noise.sources:
        noise_of(readable.store, noise)
    try:
        plan, draws, judges = _plan(readable, noise)
        identity.images.at(np.array([identity.images.count - 1]))
        if identity.data_or_none.raw and not {"every", "of", "indices"} & identity.images.model_fields_set:
            raise ValueError("its images are neither a range nor a list")
        return RecordTerms(identity.records_per_image, identity.num_classes, plan, draws, judges)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise StoreError(f"{readable.folder} does not say what run it is of: {type(error).__name__}: {error}") from None


def parts(readable: Readable) -> Iterator[RecordPart]:
    """Yield the records, a shard's number of them at a time."""
    for start in range(0, len(readable.positions), stores.SHARD):
        yield RecordPart(readable.positions[start : start + stores.SHARD], readable.table.slice(start, stores.SHARD))


def check_images(readable: Readable, terms: RecordTerms) -> StoreCheck:
    """Check that every record is of the image of its place, that none comes twice, and that classes are classes."""
    index, place = readable.store.column("index"), readable.positions // terms.per_image
    places, first = np.unique(place, return_index=True)
    images = readable.identity.images.at(places)
    images = index[first] if images is None else images
    problems = [] if len(np.unique(images)) == len(images) else ["the run has an image twice"]
    expected = images[np.searchsorted(places, place)]
    problems += [f"record {readable.positions[row]} is of image {index[row]}, and image {expected[row]} belongs there"
                 for row in np.flatnonzero(index != expected)]
    for name, least in (("label", 0), ("prediction", ABSTAIN)):
        values = readable.store.column(name)
        problems += [f"record {readable.positions[row]} (image {index[row]}): {name} {values[row]} is not a class"
                     for row in np.flatnonzero((values < least) | (values >= terms.num_classes))]
    return StoreCheck("images", f"{len(places)} in the order of the run", tuple(problems))


def check_votes(readable: Readable, terms: RecordTerms) -> list[StoreCheck]:
    """Check that the tallies are looks that the procedure takes, and the answers those that it gives for them."""
    wrong_looks, wrong_answers, looks = list[str](), list[str](), 0
    for part in parts(readable):
        tallies = part.table.column("tallies")
        found = dict(enumerate(_histories(tallies, terms.num_classes)))
        looks += len(tallies.combine_chunks().flatten())
        wrong = {row: history for row, history in found.items() if isinstance(history, str)}
        wrong |= dict.fromkeys(_find_untidy(tallies), "its votes do not list each class that has some once, in order")
        sound = {row: history for row, history in found.items() if row not in wrong and not isinstance(history, str)}
        wrong |= dict(_wrong_looks(terms, sound))
        wrong_looks += [f"{part.name(row)}: {wrong[row]}" for row in sorted(wrong)]
        if terms.plan is not None and terms.judges:
            rest = {row: history for row, history in sound.items() if row not in wrong}
            wrong_answers += _wrong_answers(part, terms.plan, rest, readable.identity.noise.sigma)
    told = "none that votes alone decide" if not terms.judges else (
        f"{len(readable.positions)} computed again from their votes, equal up to rounding")
    return [StoreCheck("tallies", f"{looks} looks" + ", those that the procedure takes" * terms.draws,
                       tuple(wrong_looks)),
            StoreCheck("answers", told if not wrong_answers else "computed again from their votes",
                       tuple(wrong_answers))]


def _plan(readable: Readable, noise: Any) -> tuple[Plan | None, bool, bool]:
    """Return (plan, draws, judges) of `RecordTerms`."""
    identity = readable.identity
    if identity.kind == "regression" or (identity.kind == "distributional" and identity.counted_from is None):
        return None, False, False
    if identity.routed_from is not None:
        return None, False, False
    if identity.kind == "multi-label":
        return plan_of_labels(readable.store).each, True, True
    if identity.procedure.method == "softmax":
        return predict_plan(n=identity.procedure.n), True, False
    computed_again = (identity.recertified_from or identity.counted_from) and identity.procedure.design != "fixed"
    return (rebuild_plan(identity.procedure, noise_of(readable.store, noise)), not computed_again,
            identity.kind != "distributional")


def _histories(tallies: pa.ChunkedArray, num_classes: int) -> list[History | str]:
    """Return the looks of each record, or what is wrong with them."""
    try:
        return list(histories(tallies, num_classes))
    except StoreError as error:
        if len(tallies) == 1:
            return [str(error)]
        return [_histories(tallies.slice(row, 1), num_classes)[0] for row in range(len(tallies))]


def _find_untidy(tallies: pa.ChunkedArray) -> list[int]:
    """Return the records with a tally whose classes do not ascend, or whose counts are not above 0."""
    column: Any = tallies.combine_chunks()
    looks = column.flatten()
    owner = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
    lengths = np.diff(looks.field("classes").offsets.to_numpy())
    look = np.repeat(np.arange(len(looks)), lengths)
    classes, counts = (looks.field(name).flatten().to_numpy() for name in ("classes", "counts"))
    bad = look[1:][(np.diff(look) == 0) & (np.diff(classes) <= 0)].tolist()
    if len(counts) == len(classes):
        bad += look[counts <= 0].tolist()
    return sorted({int(owner[one]) for one in bad})


def _wrong_looks(terms: RecordTerms, found: dict[int, History]) -> Iterator[tuple[int, str]]:
    """Yield (row, what is wrong) of records whose looks are none that the plan takes."""
    if terms.plan is None:
        yield from ((row, "has votes, and its kind of record has none") for row, looks in found.items() if looks)
    elif terms.draws:
        yield from _replay(terms.plan, found)
    else:
        most = terms.plan.most()
        for row, looks in found.items():
            drawn = count_samples((look.stage, int(look.counts.sum())) for look in looks)
            if drawn > most:
                yield row, f"{drawn} samples were drawn, and the procedure takes at most {most}"
            elif any(_has_lost_votes(looks, step) for step in range(len(looks))):
                yield row, "votes of a look are missing in the next"


def _replay(plan: Plan, found: dict[int, History]) -> Iterator[tuple[int, str]]:
    """Hold every look against the draw that the plan asks for after those before it, and yield what is wrong."""
    step, left = 0, dict(found)
    while left:
        draws = dict(zip(left, plan.next([looks[:step] for looks in left.values()]), strict=True))
        wrong = {row: words for row, looks in left.items() if (words := _wrong_look(looks, step, draws[row]))}
        yield from wrong.items()
        left = {row: looks for row, looks in left.items() if row not in wrong and len(looks) > step}
        step += 1


def _wrong_look(looks: History, step: int, draw: Draw | None) -> str | None:
    """Return what is wrong with a look (or, after the last, with there being none) where the plan asks for `draw`."""
    if step == len(looks):
        return f"stops where the procedure draws {draw.n} more samples of stage {draw.stage}" if draw else None
    stage, n = looks[step].stage, int(looks[step].counts.sum())
    if draw is None:
        return f"has a look of stage {stage} at {n} samples where the procedure has stopped"
    wanted = int(_before(looks, step, draw.stage).counts.sum()) + draw.n
    if (stage, n) != (draw.stage, wanted):
        return f"has a look of stage {stage} at {n} samples where the procedure has {draw.stage} at {wanted}"
    return "votes of a look are missing in the next" if _has_lost_votes(looks, step) else None


def _before(looks: History, step: int, stage: str) -> Look:
    """Return the last look of a stage before `step`; one without votes where there is none."""
    earlier = [look for look in looks[:step] if look.stage == stage]
    return earlier[-1] if earlier else Look(stage, np.zeros_like(looks[step].counts))


def _has_lost_votes(looks: History, step: int) -> bool:
    return bool((looks[step].counts < _before(looks, step, looks[step].stage).counts).any())


def _wrong_answers(part: RecordPart, plan: Plan, found: dict[int, History], sigma: float) -> Iterator[str]:
    rows = list(found)
    stored = part.table.drop_columns(["tallies"]).take(pa.array(rows, pa.int64())).to_pylist()
    for row, record, answer in zip(rows, stored, _answers(plan, list(found.values())), strict=True):
        if isinstance(answer, str):
            yield f"{part.name(row)}: {answer}"
            continue
        for name, value in answer.items():
            if not is_same(name, record[name], value, sigma):
                yield f"{part.name(row)}: {name} is {record[name]}, and its votes give {value}"


def _answers(plan: Plan, looks: Sequence[History]) -> list[dict[str, Any] | str]:
    """Return prediction and values of each record by name, or why there are none."""
    try:
        found = plan.judge(looks)
    except InputError as error:
        return [str(error)] if len(looks) == 1 else [_answers(plan, [one])[0] for one in looks]
    columns = {"prediction": found.prediction.tolist(), **{name: v.tolist() for name, v in found.values.items()}}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def check_original(readable: Readable, original: Store) -> StoreCheck:
    """Check that a transferred store rests on the looks of the store that it says it was made from.

    Raises:
        InputError: a store that was not transferred.
    """
    told = readable.identity.transferred_from
    if told is None:
        raise InputError(f"original-store: {readable.folder} was not transferred from another store: leave it out")
    if told.digest != original.identity.digest:
        return StoreCheck("original", "another store", (f"{readable.folder} was made from another store than "
                                                        f"{original.folder}: their identities differ",))
    rows = {index: row for row, index in enumerate(original.column("index").tolist())}
    problems = []
    for part in parts(readable):
        for row, history in enumerate(_histories(part.table.column("tallies"), readable.identity.num_classes)):
            place = rows.get(part.index[row])
            theirs = [] if place is None else original.histories(place, 1)[0]
            ours = [] if isinstance(history, str) else split(history)[0]
            if [(look.stage, look.counts.tolist()) for look in ours] != [
                    (look.stage, look.counts.tolist()) for look in theirs]:
                problems.append(f"{part.name(row)}: its looks before the copies are not those of {original.folder}")
    return StoreCheck("original", f"the looks of {original.folder}", tuple(problems))


def check_settings(readable: Readable, terms: RecordTerms) -> StoreCheck | None:
    """Check the setting of every record against the run's. Returns None for kinds of store that have none.

    Raises:
        StoreError: the identity does not say which settings there were.
    """
    identity = readable.identity
    if identity.kind not in _KINDS or identity.counted_from is not None:
        return None
    list_settings, find_contradiction = _KINDS[identity.kind]
    try:
        expected = list_settings(identity)
        if len(expected) != terms.per_image:
            raise ValueError(f"{len(expected)} settings, {terms.per_image} records an image")
        problems = [problem for part in parts(readable) for problem in _find_others(part, expected)]
        problems += [f"{part.name(row)}: {words}" for part in parts(readable)
                     for row, record in enumerate(part.table.drop_columns(["tallies"]).to_pylist())
                     if (words := find_contradiction(record, identity))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{readable.folder} does not say its settings ({type(error).__name__}: {error})") from None
    read = ", intervals equal to what their order statistics give" if identity.kind == "regression" else ""
    return StoreCheck("settings", f"{len(expected)} for each image{read}", tuple(problems))


def _attack_settings(identity: Identity) -> list[dict[str, Any]]:
    """Return what each record of an image says of its attack."""
    attack = identity.attack
    size = "eps" if attack.eps is not None else "times"
    return [{size: setting.size, "m": setting.m, "steps": setting.steps}
            for setting in list_attacks(attack.eps or attack.times or [], attack.m, attack.steps)]


def _ascent_settings(identity: Identity) -> list[dict[str, Any]]:
    """Return what each record of an image says of its ascent."""
    run = identity.distributional
    gammas = sorted({*run.gamma, *run.gamma_adv})
    return [{"form": setting.form, "gamma": setting.gamma}
            for setting in list_ascents(gammas, run.gamma if run.eps_equivalent else ())]


def _output_settings(identity: Identity) -> list[dict[str, Any]]:
    """Return what each record of an input says of its output."""
    return [{"output": k} for k in range(identity.regression.outputs)]


def _find_others(part: RecordPart, expected: list[dict[str, Any]]) -> Iterator[str]:
    columns = {name: part.table.column(name).to_pylist() for name in expected[0]}
    for row, position in enumerate(part.positions.tolist()):
        for name, value in expected[position % len(expected)].items():
            if columns[name][row] != value:
                yield f"{part.name(row)}: {name} is {columns[name][row]}, and the run has {value} there"


def _contradiction_in_attack(record: dict[str, Any], identity: Identity) -> str | None:
    attack, sizes = identity.attack, [record[name] for name in ("eps", "l2", "linf")]
    if not _sizes(sizes):
        return "eps, l2 and linf are not sizes"
    if record["steps"] == 0 and any(sizes):
        return "no attack, and yet the image was moved"
    attacked = attack.target if attack.target is not None else record["label"]
    if attack.eps is not None and record["attacked"] != attacked:
        return f"class {record['attacked']} was attacked, and the run attacks {attacked} here"
    if identity.procedure.method == "softmax" and (record["p_value"] is not None or record["prediction"] < 0):
        return "an answer by softmax has a class and no p-value"
    return None


def _contradiction_in_bound(record: dict[str, Any], identity: Identity) -> str | None:
    ceiling, unmoved = identity.distributional.ceiling, record["gamma"] is None
    if not _sizes([record[name] for name in ("loss", "cost", "slope", "mean", "variance", "steep")
                   if record[name] is not None]) or record["loss"] is None:
        return "its loss, cost or moments are not sizes"
    if record["mean"] is not None and record["mean"] > 1:
        return f"the mean {record['mean']} of losses in units of their ceiling is above 1"
    if unmoved and record["mean"] is not None and record["loss"] != ceiling * record["mean"]:
        return f"loss is {record['loss']}, and ceiling times mean {ceiling * record['mean']}"
    if unmoved and (record["cost"] or record["prediction"] >= 0):
        return "nothing was moved and nothing predicted, and yet there is a cost or a class"
    return None


def _label_settings(identity: Identity) -> list[dict[str, Any]]:
    """Return what each record of an input says of its label."""
    return [{"output": k} for k in range(identity.multi_label.labels)]


def _contradiction_in_interval(record: dict[str, Any], identity: Identity) -> str | None:
    kept, sketch = np.array(identity.regression.ranks), record["sketch"]
    if sketch is None or len(sketch) != len(kept) or None in sketch or not np.all(np.diff(kept) > 0):
        return f"its sketch does not have the {len(kept)} order statistics of the run"
    values = np.array(sketch)
    if np.isnan(values).any() or (values[1:] < values[:-1]).any():
        return "its order statistics do not ascend"
    found = dict(zip(("estimate", "lower", "upper"), plan_of(identity).read(kept, values), strict=True))
    for name, value in found.items():
        if record[name] != value.tolist():
            return f"{name} is {record[name]}, and its order statistics give {value.tolist()}"
    return None


def _sizes(values: list[float]) -> bool:
    return all(value is not None and np.isfinite(value) and value >= 0 for value in values)


_KINDS = {"attack": (_attack_settings, _contradiction_in_attack),
          "distributional": (_ascent_settings, _contradiction_in_bound),
          "multi-label": (_label_settings, lambda record, identity: None),
          "regression": (_output_settings, _contradiction_in_interval)}
"""Of kinds of store that have settings: the settings of an image's records, and what contradicts itself in a record."""
