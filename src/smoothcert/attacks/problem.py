"""The attacked examples, and what an attack may ask about them: logits under noise, gradients, who is fooled."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from smoothcert.attacks.geometry import NORMS, safe_radius
from smoothcert.attacks.surrogates import Surrogate
from smoothcert.draws import standard_normals
from smoothcert.errors import ModelError

Bounds = tuple[float, float] | None


def draw_noise(images: Tensor, m: int, sigma: float, generator: torch.Generator) -> Tensor:
    """e ~ N(0, sigma^2 I) for m copies of each image: (B, C, H, W) -> (B, m, C, H, W)."""
    shape = (len(images), m, *images.shape[1:])
    return standard_normals(shape, generator, images).mul_(sigma)


def noisy_logits(model: Any, images: Tensor, noise: Tensor) -> Tensor:
    """Logits of the m noisy copies in one pass: (b, C, H, W), (b, m, C, H, W) -> (b, m, K). Nothing is clipped.

    16-bit logits, as autocast gives, are widened: their probabilities would round to 0 and 1.
    """
    logits = torch.as_tensor(model((images.unsqueeze(1) + noise).flatten(0, 1)))
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).unflatten(0, noise.shape[:2])


@dataclass(frozen=True)
class Probe:
    """What was seen at x + delta.

    Attributes:
        logits: of the noisy copies, (B, m, K).
        gradient: of what is ascended, (B, C, H, W).
    """

    logits: Tensor
    gradient: Tensor

    def take(self, keep: Tensor) -> "Probe":
        return Probe(self.logits[keep], self.gradient[keep])


@dataclass(frozen=True)
class Problem:
    """B examples under attack.

    Attributes:
        model: (N, C, H, W) -> (N, K) logits, frozen.
        images: x, (B, C, H, W).
        labels: (B,) true classes, or the classes wanted of a targeted attack; or whatever the surrogate takes, B rows.
        noise: e, (B, m, C, H, W): the same at every step.
        eps: bound on ||delta||, (B,) float64.
        targeted: the surrogate is descended instead of ascended.
        bounds: (low, high) of every pixel of x + delta, or None.
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
        """The problem of the examples where `keep` (B,) is true."""
        return replace(self, images=self.images[keep], labels=self.labels[keep], noise=self.noise[keep],
                       eps=self.eps[keep])

    def gradient(self, delta: Tensor, surrogate: Surrogate) -> Probe:
        """Logits at x + delta, and the exact gradient there of the surrogate (negated where targeted)."""
        sign = -1.0 if self.targeted else 1.0
        parts = [_surrogate_gradient(self.model, x, noise, labels, surrogate, sign, self.rows)
                 for x, noise, labels in self._groups(delta, self.noise)]
        return Probe(torch.cat([p.logits for p in parts]), torch.cat([p.gradient for p in parts]))

    def logits(self, delta: Tensor, noise: Tensor | None = None) -> Tensor:
        """Logits (B, m, K) at x + delta, no gradient kept; under other noise than the problem's where given."""
        with torch.no_grad():
            return torch.cat([
                torch.cat([noisy_logits(self.model, x, chunk) for chunk in _chunks(noise, self.rows)], dim=1)
                for x, noise, _ in self._groups(delta, self.noise if noise is None else noise)
            ])

    def share(self, logits: Tensor) -> Tensor:
        """The share of each example's noisy copies that are classified as its label, (B,)."""
        return (logits.argmax(dim=-1) == self.labels.unsqueeze(1)).double().mean(dim=1)

    def fooled(self, logits: Tensor) -> Tensor:
        """Whether the vote over the noisy copies is another class than the label (is it, where targeted), (B,)."""
        votes = torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=1).argmax(dim=1)
        return (votes == self.labels) if self.targeted else (votes != self.labels)

    def into_box(self, delta: Tensor) -> Tensor:
        """The nearest delta with x + delta in bounds."""
        return delta if self.bounds is None else (self.images + delta).clamp(*self.bounds) - self.images

    def into_ball(self, delta: Tensor, norm: str) -> Tensor:
        """The nearest delta with ||delta|| <= eps, rounding included."""
        if self.bounds is None:
            magnitude = float(torch.maximum(self.images.abs(), (self.images + delta).abs()).max())
        else:
            magnitude = max(map(abs, self.bounds))
        radius = safe_radius(self.eps, delta[0].numel(), magnitude, norm, delta.dtype)
        return NORMS[norm].project(delta, radius)

    def direction(self, gradient: Tensor, norm: str) -> Tensor:
        """The norm's steepest direction of ascent, random where the gradient is zero."""
        return NORMS[norm].direction(gradient, self.generator)

    def _groups(self, delta: Tensor, noise: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """x + delta, noise and labels of as many whole examples as fit in one pass, at least one."""
        size = max(1, self.rows // noise.shape[1])
        yield from zip((self.images + delta).split(size), noise.split(size), self.labels.split(size), strict=True)


def _chunks(noise: Tensor, rows: int) -> tuple[Tensor, ...]:
    return noise.split(max(1, rows // len(noise)), dim=1)


def _surrogate_gradient(
    model: Any, x: Tensor, noise: Tensor, labels: Tensor, surrogate: Surrogate, sign: float, rows: int
) -> Probe:
    """Where the m copies do not fit in one pass, a first pass without graph finds all logits, hence what each logit
    weighs in the surrogate, and a second one pulls these weights back through the network, chunk by chunk.

    The surrogate sees float64 logits: at a class surer than 1 - 2^-24 its float32 gradient would be 0.
    """
    chunks = _chunks(noise, rows)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        if len(chunks) == 1:
            logits = _differentiable(noisy_logits(model, x, noise))
            (gradient,) = torch.autograd.grad(sign * surrogate(logits.double(), labels).sum(), x)
            return Probe(logits.detach(), gradient)
        with torch.no_grad():
            logits = torch.cat([noisy_logits(model, x, chunk) for chunk in chunks], dim=1)
        leaf = logits.double().requires_grad_()
        (weights,) = torch.autograd.grad(sign * surrogate(leaf, labels).sum(), leaf)
        gradient = torch.zeros_like(x)
        for chunk, weight in zip(chunks, weights.split(chunks[0].shape[1], dim=1), strict=True):
            seen = _differentiable(noisy_logits(model, x, chunk))
            gradient += torch.autograd.grad(seen, x, weight.to(seen.dtype))[0]
    return Probe(logits, gradient)


def _differentiable(logits: Tensor) -> Tensor:
    if not logits.requires_grad:
        raise ModelError(
            "this attack follows gradients, and the model's logits have none with respect to its input (computed "
            "outside torch, or under no_grad): take the attack stein, which needs only answers"
        )
    return logits
