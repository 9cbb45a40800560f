"""The one loop of every attack, and the problem that it runs on: what an attack may ask about the examples."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from smoothcert.attacks.geometry import NORMS, safe_radius
from smoothcert.attacks.surrogates import Surrogate
from smoothcert.checks import check_count
from smoothcert.errors import InputError, ModelError
from smoothcert.progress import count_passes
from smoothcert.smoothing.soft import freeze, noisy_logits

Bounds = tuple[float, float] | None
State = dict[str, Tensor]
"""The tensors that an attack carries from step to step, B rows each: "delta" (B, *shape), and others of its own."""


PASSES = 3
"""Forward passes that a step takes of each noisy copy, about: one forward, and one backward at twice its cost."""


@dataclass(frozen=True)
class Probe:
    """The answers of the network at x + delta.

    Attributes:
        logits: of the noisy copies, (B, m, K).
        gradient: the direction to ascend in, (B, *shape).
    """

    logits: Tensor
    gradient: Tensor

    def take(self, keep: Tensor) -> "Probe":
        return Probe(self.logits[keep], self.gradient[keep])


@dataclass(frozen=True)
class Problem:
    """B examples under attack.

    Attributes:
        model: (N, *shape) -> (N, K) logits, frozen.
        images: x, (B, *shape): (B, C, H, W) of images.
        labels: (B,) true classes, or the classes wanted of a targeted attack; or whatever the surrogate takes, B rows.
        noise: e, (B, m, *shape): the same at every step.
        eps: bound on ||delta||, (B,) float64.
        targeted: descend the surrogate instead of ascending it.
        bounds: (low, high) of every value of x + delta, or None.
        rows: at most this many noisy images in one pass of the network.
        generator: for random starts, directions and fresh noise.
    """

    model: Any
    images: Tensor
    labels: Tensor
    noise: Tensor
    eps: Tensor
    targeted: bool
    bounds: Bounds
    rows: int
    generator: torch.Generator

    def take(self, keep: Tensor) -> "Problem":
        """Return the problem of the examples where `keep` (B,) is true."""
        return replace(self, images=self.images[keep], labels=self.labels[keep], noise=self.noise[keep],
                       eps=self.eps[keep])

    def gradient(self, delta: Tensor, surrogate: Surrogate) -> Probe:
        """Return the logits at x + delta, and there the exact gradient of the surrogate (negated where targeted)."""
        sign = -1.0 if self.targeted else 1.0
        parts = [_surrogate_gradient(self.model, x, noise, labels, surrogate, sign, self.rows)
                 for x, noise, labels in self._groups(delta, self.noise)]
        return Probe(torch.cat([p.logits for p in parts]), torch.cat([p.gradient for p in parts]))

    def logits(self, delta: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return logits (B, m, K) at x + delta without a gradient, under `noise` instead of the problem's if given."""
        with torch.no_grad():
            return torch.cat([
                torch.cat([noisy_logits(self.model, x, chunk) for chunk in _chunks(noise, self.rows)], dim=1)
                for x, noise, _ in self._groups(delta, self.noise if noise is None else noise)
            ])

    def share(self, logits: Tensor) -> Tensor:
        """Return the share of each example's noisy copies that are classified as its label, (B,)."""
        return (logits.argmax(dim=-1) == self.labels.unsqueeze(1)).double().mean(dim=1)

    def is_fooled(self, logits: Tensor) -> Tensor:
        """Tell for each example if the vote over its noisy copies is wrong, or the class wanted if targeted, (B,)."""
        votes = torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=1).argmax(dim=1)
        return (votes == self.labels) if self.targeted else (votes != self.labels)

    def into_box(self, delta: Tensor) -> Tensor:
        """Return the nearest delta with x + delta in bounds."""
        return delta if self.bounds is None else (self.images + delta).clamp(*self.bounds) - self.images

    def into_ball(self, delta: Tensor, norm: str) -> Tensor:
        """Return the nearest delta with ||delta|| <= eps, rounding included."""
        if self.bounds is None:
            magnitude = float(torch.maximum(self.images.abs(), (self.images + delta).abs()).max())
        else:
            magnitude = max(map(abs, self.bounds))
        radius = safe_radius(self.eps, delta[0].numel(), magnitude, norm, delta.dtype)
        return NORMS[norm].project(delta, radius)

    def direction(self, gradient: Tensor, norm: str) -> Tensor:
        """Return the norm's direction of steepest ascent, a random one where the gradient is zero."""
        return NORMS[norm].direction(gradient, self.generator)

    def _groups(self, delta: Tensor, noise: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield x + delta, noise and labels of as many whole examples as fit in one pass, at least one."""
        size = max(1, self.rows // noise.shape[1])
        yield from zip((self.images + delta).split(size), noise.split(size), self.labels.split(size), strict=True)


class AttackMethod(Protocol):
    """An attack: a frozen dataclass of settings that fills the holes of `run`. To add one: a file, a row in `ATTACKS`.

    `eps` bounds ||delta|| where the caller gives no bound for each example, `steps` is T.
    """

    @property
    def eps(self) -> float: ...

    @property
    def steps(self) -> int: ...

    def start(self, problem: Problem) -> State:
        """Return the state before the first step."""
        ...

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        """Return the logits at x + delta and a direction of ascent."""
        ...

    def is_finished(self, problem: Problem, probe: Probe) -> Tensor | None:
        """Tell which examples (B,) need no further step; return None if the attack never stops early."""
        ...

    def step(self, problem: Problem, state: State, probe: Probe, t: int) -> State:
        """Return the state after step t = 0, 1, ..., T - 1, with delta not yet projected."""
        ...

    def project(self, problem: Problem, delta: Tensor) -> Tensor:
        """Return the delta that is allowed between steps."""
        ...

    def finish(self, problem: Problem, state: State) -> Tensor:
        """Return the final delta, inside box and ball."""
        ...


def run(attack: AttackMethod, problem: Problem) -> Tensor:
    """Return delta (B, *shape); examples that are finished leave the batch."""
    result = torch.zeros_like(problem.images)
    rest = torch.arange(len(result), device=result.device)
    state = attack.start(problem)
    for t in range(attack.steps):
        probe = attack.probe(problem, state["delta"])
        count_passes(PASSES * len(rest) * problem.noise.shape[1])
        finished = attack.is_finished(problem, probe)
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


def attack_images(
    attack: AttackMethod, model: Any, images: Tensor, labels: Tensor, noise: Tensor | None = None, *,
    generator: torch.Generator, eps: Tensor | None = None, targeted: bool = False, bounds: Bounds = (0.0, 1.0),
    rows: int | None = None,
) -> Tensor:
    """Return adversarial inputs x' (B, *shape) with ||x' - x|| <= eps and every value in `bounds`, both exactly.

    Args:
        attack: its settings, such as `PGD(eps=0.5, steps=20)`.
        model: (N, *shape) -> (N, K) logits; a denoiser in front of the classifier is part of it. A module is attacked
            in eval mode with frozen parameters, and left as it was found.
        images: x, (B, *shape), (B, C, H, W) of images, in `bounds`.
        labels: the true classes (B,), or the classes wanted of a targeted attack.
        noise: e_j of the m noisy copies of each input, (B, m, *shape), used at every step; None attacks the base
            classifier at x itself.
        generator: for random starts, random directions and fresh noise, on the images' device.
        eps: a bound for each image, (B,), in place of `attack.eps`.
        targeted: treat `labels` as the classes to reach instead of those to avoid.
        bounds: the range of the values, or None for any.
        rows: at most this many noisy images in one pass of the network, which bounds memory and changes results in
            their last bits only; None is 128 on a CPU, whose cache that suits, and 512 elsewhere.
    Raises:
        InputError: shapes that do not fit each other, or inputs outside the bounds.
        ModelError: a model without gradients under an attack that needs them, or one whose gradients are not finite.
    """
    noise = torch.zeros_like(images).unsqueeze(1) if noise is None else noise
    _check_shapes(images, labels, noise, eps)
    if bounds is not None and images.numel():
        low, high = float(images.min()), float(images.max())
        if not (bounds[0] <= low and high <= bounds[1]):
            raise InputError(f"values must lie in [{bounds[0]}, {bounds[1]}] before an attack, got values from "
                             f"{low:.9g} to {high:.9g}: undo any normalisation (it belongs inside the model), or pass "
                             f"other bounds")
    rows = default_rows(images) if rows is None else check_count("rows", rows)
    radii = torch.full((len(images),), attack.eps, dtype=torch.float64) if eps is None else eps.double()
    if not len(images):
        return images.clone()
    with freeze(model) as network:
        problem = Problem(network, images.detach(), labels, noise.detach(), radii.to(images.device), targeted, bounds,
                          rows, generator)
        moved = images.detach() + run(attack, problem)
    moved = moved if bounds is None else moved.clamp(*bounds)
    if not moved.isfinite().all():
        raise ModelError("the attack met gradients that are not finite: check the network's weights (if this happened "
                         "in training, it has diverged: lower the learning rate)")
    return moved


def default_rows(images: Tensor) -> int:
    """Return how many noisy images go through the network in one pass where the caller does not say."""
    return 128 if images.device.type == "cpu" else 512


def _check_shapes(images: Tensor, labels: Tensor, noise: Tensor, eps: Tensor | None) -> None:
    if images.ndim < 2 or not images.is_floating_point():
        raise InputError(f"inputs must be floats (B, *shape), (B, C, H, W) of images, got {images.dtype} of shape "
                         f"{tuple(images.shape)}")
    if labels.ndim == 0 or len(labels) != len(images):
        raise InputError(f"labels must name a class for each of {len(images)} image(s), got shape "
                         f"{tuple(labels.shape)}")
    if noise.ndim < 2 or len(noise) != len(images) or noise.shape[1] < 1 or noise.shape[2:] != images.shape[1:]:
        raise InputError(f"noise for inputs of shape {tuple(images.shape)} must have shape (B, m, *shape) with m at "
                         f"least 1, got {tuple(noise.shape)}")
    if eps is not None and (eps.shape != (len(images),) or not bool((eps >= 0).all())):
        raise InputError(f"eps must hold a bound of at least 0 for each of {len(images)} image(s), got {eps}")


def _chunks(noise: Tensor, rows: int) -> tuple[Tensor, ...]:
    return noise.split(max(1, rows // len(noise)), dim=1)


def _surrogate_gradient(
    model: Any, x: Tensor, noise: Tensor, labels: Tensor, surrogate: Surrogate, sign: float, rows: int
) -> Probe:
    """Return the logits at x and the surrogate's gradient, in as many passes as `rows` asks for.

    If the m copies do not fit in one pass, a first pass without graph finds all logits, and so the weight of each logit
    in the surrogate; a second one pulls these weights back through the network, chunk by chunk. The surrogate sees
    float64 logits, since the float32 gradient at a class surer than 1 - 2^-24 would be 0.
    """
    chunks = _chunks(noise, rows)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        if len(chunks) == 1:
            logits = _check_differentiable(noisy_logits(model, x, noise))
            (gradient,) = torch.autograd.grad(sign * surrogate(logits.double(), labels).sum(), x)
            return Probe(logits.detach(), gradient)
        with torch.no_grad():
            logits = torch.cat([noisy_logits(model, x, chunk) for chunk in chunks], dim=1)
        leaf = logits.double().requires_grad_()
        (weights,) = torch.autograd.grad(sign * surrogate(leaf, labels).sum(), leaf)
        gradient = torch.zeros_like(x)
        for chunk, weight in zip(chunks, weights.split(chunks[0].shape[1], dim=1), strict=True):
            seen = _check_differentiable(noisy_logits(model, x, chunk))
            gradient += torch.autograd.grad(seen, x, weight.to(seen.dtype))[0]
    return Probe(logits, gradient)


def _check_differentiable(logits: Tensor) -> Tensor:
    if not logits.requires_grad:
        raise ModelError(
            "this attack follows gradients, and the model's logits have none with respect to its input (they are "
            "computed outside torch, or under no_grad): use the attack stein, which needs only answers"
        )
    return logits
