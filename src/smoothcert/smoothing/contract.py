"""The contract of a base classifier, tried on a few rows before anything is sampled: a function of one input.

Every certificate rests on it. A model whose answer to a row depends on the other rows of a batch, or on chance, has no
smoothed classifier that votes could be counted for. Eight fixed rows are judged in one batch, twice; some of them again
in a smaller batch, in another order and company; and each of those alone: 26 rows in 7 passes. What these rows do not
show is not found: a model that changes with time, or only on rare inputs (docs/concepts.md).

A model that answers in steps (a hard answer inside the network, a tree) needs more care. Its rounding errors are not
small: they flip a step, with any margin, for one row in 100,000. Such a model is recognised by answers that do not
move at all with its input, and then its steps are searched for and judged from both sides, alone and in batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.errors import InputError, ModelError, SmoothcertError, first_line
from smoothcert.smoothing.files import runtime_of
from smoothcert.smoothing.protocols import Normals, as_logits, check_finite, check_logits, device_of, input_dtype
from smoothcert.smoothing.voters import CLOSE_CALL, is_close

ROUNDING = CLOSE_CALL / 4
"""The share of its scale by which rounding may move a logit, so that close calls catch every vote it changes."""

COARSE = {torch.float16: 2.0**-7, torch.bfloat16: 2.0**-4}
"""The same for networks whose own types are too coarse for close calls to catch what rounding changes."""

_SURELY_NOT_ROUNDING = 1e-3  # beyond it a model is refused; between the two its rows are judged alone

_ROWS = 8
_MIXED = (7, 0, 5, 2)  # judged again in another order and company, and alone
_MOVED = 2  # how many of these are moved a little, to see whether their answers move
_LITTLE = 2.0**-18
_POINTS, _ZOOMS, _STEPS = 32, 5, 3  # 32^5 = 2^25 points of a segment: as fine as float32 can tell apart


@dataclass(frozen=True)
class Conduct:
    """The way in which a model answered.

    Attributes:
        alone: why its rows must be judged one by one; None where batches give the same answers.
        steps: its answers do not move with its input but jump; engines that round otherwise may move the jumps.
        exact: batches do not change a bit of them, not even beside a jump: no call needs to be judged again.
        overwrites: it changes the rows that it is given.
        answers: what `few_answers` gives.
    """

    alone: str | None = None
    steps: bool = False
    exact: bool = False
    overwrites: bool = False
    answers: Tensor = field(default_factory=lambda: torch.empty(0), compare=False, repr=False)


def check_placed(device: torch.device, *networks: Any) -> None:
    """Raise InputError for a network whose parameters are on another device than the one it is to run on."""
    for network in networks:
        tensors = chain(network.parameters(), network.buffers()) if isinstance(network, nn.Module) else iter(())
        where = next((tensor.device for tensor in tensors), device)
        if where != device and (where.type != device.type or None not in (where.index, device.index)):
            raise InputError(f"the parameters of {type(network).__name__} are on {where}, and it is to run on "
                             f"{device}: move it there, .to('{device}'), or name no other device")


def try_rows(
    run: Callable[..., Any], shape: Sequence[int], num_classes: int | None, device: torch.device, *,
    model: Any = None, random: bool = False, sigma: float = 0.5, bounds: tuple[float, float] | None = None,
) -> Conduct:
    """Judge a few rows alone, in batches of different sizes and company, and twice.

    Args:
        run: float32 rows (N, *shape) on `device` -> logits (N, K), with `Normals` after them where `random`.
        num_classes: K; None where it is yet to be seen.
        model: the module behind `run`, if any, in which the layer at fault is looked for.
        sigma, bounds: noise level and range of the inputs that it will see; half of the rows look like those.
    Raises:
        ModelError: the model fails, does not return logits, or is no function of one input: its answers depend on
            the other rows of the batch, or differ from call to call.
    """
    trial = _Trial(run, _inputs(shape, sigma, bounds).to(device), num_classes, random)
    alone = torch.cat([trial.logits([row]) for row in _MIXED])
    return replace(_compare(trial, alone, model), overwrites=trial.overwrites, answers=alone[:2])


def _compare(trial: "_Trial", alone: Tensor, model: Any) -> Conduct:
    """Return the conduct of a model that gave these answers to four rows alone, or raise as `try_rows` does."""
    whole = trial.logits(range(_ROWS))
    check_finite(not bool(whole.isnan().any()))
    scale, allowed = row_scale(whole), COARSE.get(input_dtype(model), ROUNDING)
    again = trial.logits(range(_ROWS))
    if (found := largest_difference(whole, again, scale)) > allowed:
        raise ModelError(_unsteady(found, _place(model, trial, range(_ROWS), range(_ROWS))))
    mixed, moved = trial.judge_moved(_MIXED, _MOVED)
    apart = {row: max(largest_difference(whole[[row]], other[[k]], scale[[row]]) for other in (mixed, alone))
             for k, row in enumerate(_MIXED)}
    found = max(apart.values())
    if found > max(allowed, _SURELY_NOT_ROUNDING):
        for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
            if type(module).__module__.startswith("torch.ao.nn.quantized.dynamic"):
                layer = f"{name or 'itself'} ({type(module).__name__})"
                return trial.alone(f"its layer {layer} takes the scale of what it rounds from the whole batch")
        place = _place(model, trial, range(_ROWS), [max(apart, key=apart.__getitem__)])
        raise ModelError(
            f"the model is no function of one input: its answer to a row depends on the other rows of the batch, by "
            f"{found:.2g} of its largest logit{place}. Statistics of a batch, a softmax over dim 0 and scales taken "
            f"over a batch do that. Change it to judge each row by itself; if it is meant for batches of one image, "
            f"give lambda images: torch.cat([model(image) for image in images.split(1)])")
    if found > allowed:
        return trial.alone(f"its answer to a row depends on the batch, by {found:.1g} of its largest logit, which is "
                           f"more than rounding does in most networks")
    same = torch.equal(whole[list(_MIXED)], alone) and torch.equal(mixed, alone) and torch.equal(whole, again)
    if runtime_of(model) is not None:  # whose integers make a step of a bit, beyond the reach of close calls
        if not same:
            return trial.alone("its answer to a row depends on the batch in its last bits, which its integers magnify")
        return Conduct(steps=True, exact=True)
    if allowed != ROUNDING or not torch.equal(mixed[: len(moved)], moved):
        return Conduct()
    return _judge_steps(trial, whole, same)


def few_answers(
    run: Callable[..., Any], shape: Sequence[int], num_classes: int, device: torch.device, random: bool = False,
    sigma: float = 0.5, bounds: tuple[float, float] | None = None,
) -> Tensor:
    """Judge two of the trial's rows alone: logits (2, K) that tell whether a model still is what it was."""
    trial = _Trial(run, _inputs(shape, sigma, bounds).to(device), num_classes, random)
    return torch.cat([trial.logits([row]) for row in _MIXED[:2]])


class _Trial:
    """The model on the trial's rows, with the normals that belong to each row where it asks for them."""

    def __init__(self, run: Callable[..., Any], rows: Tensor, num_classes: int | None, random: bool):
        self.run, self.rows, self._num_classes, self._random = run, rows, num_classes, random
        self.overwrites = False

    def logits(self, chosen: Sequence[int]) -> Tensor:
        return self.judge(self.rows[list(chosen)], chosen)

    def alone(self, reason: str) -> Conduct:
        """Return the conduct of a model whose rows must be judged one by one, or raise ModelError if they cannot be."""
        if self._random:
            raise ModelError(f"a random base classifier must take rows in batches, but this one cannot: {reason}")
        first, second = (torch.cat([self.logits([row]) for row in _MIXED]) for _ in range(2))
        if (found := largest_difference(first, second, row_scale(first))) > ROUNDING:
            raise ModelError(_unsteady(found, ""))
        return Conduct(alone=reason)

    def judge_moved(self, chosen: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
        """Return the answers to the chosen rows and, of the same pass, to the first of them moved a little."""
        rows = self.rows[list(chosen)]
        moved = rows[:count] + _LITTLE * self.rows[list(chosen)[::-1]][:count]
        logits = self.judge(torch.cat([rows, moved]), [*chosen, *chosen[:count]])
        return logits[: len(rows)], logits[len(rows) :]

    def judge(self, rows: Tensor, owners: Sequence[int] | None = None) -> Tensor:
        """Return the logits (N, K) of rows. `owners` says whose normals each row has: by default those of row 0."""
        owned = [0] * len(rows) if owners is None else list(owners)

        def draw(step: int, like: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(step + 1)
            return torch.randn(self.rows.shape, generator=generator)[owned].to(like)

        normals: list[Normals] = [draw] if self._random else []
        given = rows.clone()
        try:
            with torch.no_grad():
                answers = self.run(given, *normals)
        except SmoothcertError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelError(f"the model cannot take float32 images of shape {tuple(rows.shape)}: "
                             f"{first_line(error)}") from error
        self.overwrites = self.overwrites or not torch.equal(given, rows)
        if self._num_classes is None:
            self._num_classes = max(2, as_logits(answers).numel() // len(rows))
        return check_logits(answers, len(rows), self._num_classes).detach().clone()


def _inputs(shape: Sequence[int], sigma: float, bounds: tuple[float, float] | None) -> Tensor:
    """Return eight fixed rows, half of them with noise of sigma.

    Their shades and spreads differ, so that the statistics of batches do.
    """
    low, high = bounds or (0.0, 1.0)
    ramp = np.linspace(0, 1, _ROWS)
    spread = np.where(np.arange(_ROWS) % 2, sigma, (high - low) * (0.1 + 0.4 * ramp[::-1]))
    each = (-1, *[1] * len(shape))
    normals = np.random.default_rng(0).standard_normal((_ROWS, *shape), dtype=np.float32)
    rows = (low + (high - low) * ramp).reshape(each) + spread.reshape(each) * normals
    return torch.from_numpy(rows.astype(np.float32))


def _judge_steps(trial: _Trial, whole: Tensor, same: bool) -> Conduct:
    """Return the conduct of a model that answers in steps; `same` says that batches have changed no bit so far."""
    votes = whole.argmax(dim=1).tolist()
    pairs = [(i, j) for i in range(len(votes)) for j in range(i) if votes[i] != votes[j]]
    pairs = pairs[:: max(1, len(pairs) // _STEPS)][:_STEPS]
    for first, second in pairs:
        points = _beside_a_step(trial, trial.rows[first], trial.rows[second])
        together = trial.judge(points)
        alone = torch.cat([trial.judge(point) for point in points.split(1)])
        same = same and torch.equal(together, alone)
        if ((together.argmax(dim=1) != alone.argmax(dim=1)) & ~is_close(alone)).any():
            return trial.alone("it answers in steps, and which side of a step a row falls on depends on the batch")
    return Conduct(steps=True, exact=same and bool(pairs))


def _beside_a_step(trial: _Trial, start: Tensor, end: Tensor) -> Tensor:
    """Return points of the segment between two rows whose votes differ, on both sides of a change of vote."""
    low, high = 0.0, 1.0
    for _ in range(_ZOOMS):
        points, places = _between(start, end, low, high)
        votes = trial.judge(points).argmax(dim=1)
        change = int((votes[1:] != votes[:-1]).to(torch.int64).argmax())
        low, high = places[change], places[change + 1]
    middle, reach = (low + high) / 2, _POINTS / 2 * 2.0**-25
    return _between(start, end, middle - reach, middle + reach)[0]


def _between(start: Tensor, end: Tensor, low: float, high: float) -> tuple[Tensor, list[float]]:
    places = np.linspace(low, high, _POINTS)
    shares = torch.from_numpy(places).to(start.device).reshape(-1, *[1] * start.ndim)
    return (start.double() + shares * (end.double() - start.double())).float(), places.tolist()


def row_scale(logits: Tensor) -> Tensor:
    """Return (N,): each row's largest |logit|, or the median row's where that is larger."""
    largest = logits.double().abs().nan_to_num(nan=0.0, posinf=0.0).amax(dim=1)
    return largest.clamp(min=largest.median())


def largest_difference(first: Tensor, second: Tensor, scale: Tensor) -> float:
    """Return the largest difference of two answers to the same rows, as a share of each row's scale."""
    equal = (first == second) | (first.isnan() & second.isnan())
    errors = (first.double() - second.double()).abs().masked_fill(equal, 0.0).amax(dim=1)
    return float((errors / scale).masked_fill(errors == 0, 0.0).nan_to_num(nan=torch.inf).max())


def _place(model: Any, trial: _Trial, first: Sequence[int], second: Sequence[int]) -> str:
    """Say where in a network two passes that both hold a row first differ about it; "" where that is not found."""
    if not isinstance(model, nn.Module) or device_of(model) != trial.rows.device:
        return ""
    seen = [_steps(model, trial, chosen, list(chosen).index(second[0])) for chosen in (first, second)]
    for one, other in zip(*seen, strict=False):
        if one.name != other.name or one.output.shape != other.output.shape:
            return ""
        if not _agree(one.given, other.given):
            return f"; it comes about in a forward, before {one.name}"
        if not _agree(one.output, other.output):
            return f"; the first layer to do so is {one.name}"
    return "; no layer does so by itself: it comes about in a forward, after the last one"


@dataclass(frozen=True)
class _Step:
    """The input and output of a layer, for one row of a pass."""

    name: str
    given: Tensor
    output: Tensor


def _steps(model: nn.Module, trial: _Trial, chosen: Sequence[int], place: int) -> list[_Step]:
    """Pass the chosen rows and return what each layer did for one of them, in the order in which they ran."""
    found: list[_Step] = []

    def hook(module: nn.Module, given: Any, output: Any) -> None:
        both = (given or (None,))[0], output
        if all(isinstance(value, Tensor) and value.ndim and len(value) == len(chosen) for value in both):
            name = f"{names[module] or 'the model itself'} ({type(module).__name__})"
            found.append(_Step(name, *(torch.as_tensor(value)[place].detach().double().clone() for value in both)))

    names = {module: name for name, module in model.named_modules() if not list(module.children())}
    handles = [module.register_forward_hook(hook) for module in names]
    try:
        trial.logits(chosen)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _agree(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=_SURELY_NOT_ROUNDING, atol=1e-5, equal_nan=True)


def _unsteady(found: float, place: str) -> str:
    return (f"the model's answers to the same input change from call to call, by {found:.2g} of its largest "
            f"logit{place}. Switch its randomness off (functional.dropout takes training=self.training); a base "
            f"classifier that is random on purpose takes its normals as an argument (docs/concepts.md)")
