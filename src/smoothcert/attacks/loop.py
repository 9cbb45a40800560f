"""The one loop of every attack: start, then probe, step and project, and at the end what to return."""

from typing import Any, Protocol

import torch
from torch import Tensor

from smoothcert.attacks.frozen import frozen
from smoothcert.attacks.problem import Bounds, Probe, Problem
from smoothcert.checks import check_count
from smoothcert.errors import InputError, ModelError

State = dict[str, Tensor]
"""What an attack carries from step to step, B rows each: "delta" (B, C, H, W), and whatever else it needs."""


class Attack(Protocol):
    """An attack: a frozen dataclass of settings that fills the holes of `run`. To add one: a file, a row in `ATTACKS`.

    `eps` bounds ||delta|| where the caller gives no bound for each example, `steps` is T.
    """

    @property
    def eps(self) -> float: ...

    @property
    def steps(self) -> int: ...

    def start(self, problem: Problem) -> State:
        """The state before the first step."""
        ...

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        """The logits at x + delta and a direction of ascent."""
        ...

    def finished(self, problem: Problem, probe: Probe) -> Tensor | None:
        """Which examples (B,) need no further step; None where that is never asked."""
        ...

    def step(self, problem: Problem, state: State, probe: Probe, t: int) -> State:
        """The state after step t = 0, 1, ..., T - 1, delta not yet projected."""
        ...

    def project(self, problem: Problem, delta: Tensor) -> Tensor:
        """The delta that is allowed between steps."""
        ...

    def finish(self, problem: Problem, state: State) -> Tensor:
        """The delta to return, inside box and ball."""
        ...


def run(attack: Attack, problem: Problem) -> Tensor:
    """Delta (B, C, H, W); examples that are finished leave the batch."""
    result = torch.zeros_like(problem.images)
    rest = torch.arange(len(result), device=result.device)
    state = attack.start(problem)
    for t in range(attack.steps):
        probe = attack.probe(problem, state["delta"])
        finished = attack.finished(problem, probe)
        if finished is not None and finished.any():
            result[rest[finished]] = state["delta"][finished]
            keep = ~finished
            rest, problem, probe = rest[keep], problem.take(keep), probe.take(keep)
            state = {name: value[keep] for name, value in state.items()}
            if not len(rest):
                return result
        state = attack.step(problem, state, probe, t)
        state["delta"] = attack.project(problem, state["delta"])
    result[rest] = attack.finish(problem, state)
    return result


def attacked(
    attack: Attack, model: Any, images: Tensor, labels: Tensor, noise: Tensor | None = None, *,
    generator: torch.Generator, eps: Tensor | None = None, targeted: bool = False, bounds: Bounds = (0.0, 1.0),
    rows: int | None = None,
) -> Tensor:
    """Adversarial images x' (B, C, H, W) with ||x' - x|| <= eps and every pixel in `bounds`, both exactly.

    Args:
        attack: its settings, such as `PGD(eps=0.5, steps=20)`.
        model: (N, C, H, W) -> (N, K) logits; a denoiser in front of the classifier is part of it. A module is attacked
            in eval mode with frozen parameters, and left as it was found.
        images: x, (B, C, H, W), in `bounds`.
        labels: the true classes (B,), or the classes wanted of a targeted attack.
        noise: e_j of the m noisy copies of each image, (B, m, C, H, W), used at every step; None attacks the base
            classifier at x itself.
        generator: for random starts, random directions and fresh noise, on the images' device.
        eps: a bound for each image, (B,), in place of `attack.eps`.
        targeted: whether `labels` are wanted instead of avoided.
        bounds: the pixels' range, or None to lift it.
        rows: at most this many noisy images in one pass of the network, which bounds memory and changes results in
            their last bits only; None is 128 on a CPU, whose cache that suits, and 512 elsewhere.
    Raises:
        InputError: shapes that do not fit each other, or images outside the bounds.
        ModelError: a model without gradients under an attack that needs them, or one whose gradients are not finite.
    """
    noise = torch.zeros_like(images).unsqueeze(1) if noise is None else noise
    _check_shapes(images, labels, noise, eps)
    _check_bounds(images, bounds)
    rows = (128 if images.device.type == "cpu" else 512) if rows is None else check_count("rows", rows)
    radii = torch.full((len(images),), attack.eps, dtype=torch.float64) if eps is None else eps.double()
    if not len(images):
        return images.clone()
    with frozen(model) as network:
        problem = Problem(network, images.detach(), labels, noise.detach(), radii.to(images.device), targeted, bounds,
                          rows, generator)
        moved = images.detach() + run(attack, problem)
    moved = moved if bounds is None else moved.clamp(*bounds)
    if not moved.isfinite().all():
        raise ModelError("the attack met gradients that are not finite: check the network's weights (in training it "
                         "has diverged: lower the learning rate)")
    return moved


def _check_shapes(images: Tensor, labels: Tensor, noise: Tensor, eps: Tensor | None) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise InputError(f"images must be floats (B, C, H, W), got {images.dtype} of shape {tuple(images.shape)}")
    if labels.ndim == 0 or len(labels) != len(images):
        raise InputError(f"labels must name a class for each of {len(images)} image(s), got shape "
                         f"{tuple(labels.shape)}")
    if noise.ndim != 5 or len(noise) != len(images) or noise.shape[1] < 1 or noise.shape[2:] != images.shape[1:]:
        raise InputError(f"noise for images of shape {tuple(images.shape)} must have shape (B, m, C, H, W) with m at "
                         f"least 1, got {tuple(noise.shape)}")
    if eps is not None and (eps.shape != (len(images),) or not bool((eps >= 0).all())):
        raise InputError(f"eps must hold a bound of at least 0 for each of {len(images)} image(s), got {eps}")


def _check_bounds(images: Tensor, bounds: Bounds) -> None:
    if bounds is None or not images.numel():
        return
    low, high = float(images.min()), float(images.max())
    if not (bounds[0] <= low and high <= bounds[1]):
        raise InputError(f"pixels must lie in [{bounds[0]}, {bounds[1]}] before an attack, got values from {low:.9g} "
                         f"to {high:.9g}: undo any normalisation (it belongs inside the model), or pass other bounds")
