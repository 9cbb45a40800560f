"""Beyond one step: walk-jump sampling and attractors, started at x_hat (Saremi & Srivastava 2020).

`first` denoises at the smoothing noise's sigma; `second`, at sigma' << sigma, has the finer energy phi' that the walk
or the flow follows. Both are used as they are: neither is ever trained through these.
"""

import math
import warnings
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smoothcert.checks import check_count, check_known, check_positive
from smoothcert.denoise.composed import needed
from smoothcert.denoise.estimators import agreed, energy_gradient
from smoothcert.errors import InputError, ModelError
from smoothcert.smoothing.protocols import Normals
from smoothcert.smoothing.sampling import denoise

_CALLS = {"euler": 1, "rk4": 4}
"""Methods of a flow, and gradients a step."""


class StepLimitWarning(UserWarning):
    """A flow's step limit stopped rows before they arrived."""


class FrontEnd(nn.Module):
    """What walks and flows share: two denoisers and their noise levels, and how far gradients may be unrolled.

    Attributes:
        sigma: the smoothing noise's; None where `first` serves every one and none was given.
        sigma2: sigma'.
        unroll: gradients with respect to the input are given through at most so many steps; 0 refuses them.
    """

    def __init__(self, first: nn.Module, second: nn.Module, sigma: float | None, sigma2: float, unroll: int):
        super().__init__()
        own = getattr(first, "sigma", None)
        self.sigma = None if own is None and sigma is None else agreed(own, sigma)
        self.sigma2 = agreed(getattr(second, "sigma", None), check_positive("sigma2", sigma2))
        if self.sigma is not None and not self.sigma2 < self.sigma:
            raise InputError(f"sigma2, the noise level of the second denoiser, must be below sigma {self.sigma:g} "
                             f"(far below: .05 beside .6), got {self.sigma2:g}")
        self.first, self.second = first, second
        self.unroll = check_count("unroll", unroll, least=0)

    @property
    def cost(self) -> str:
        """What one row costs, in words."""
        raise NotImplementedError

    def start(self, y: Tensor, sigma: float | None) -> Tensor:
        """x_hat(y) of the first denoiser."""
        return denoise(self.first, y, agreed(self.sigma, sigma))

    def slope(self, y: Tensor) -> Tensor:
        """grad phi'(y)."""
        return energy_gradient(self.second, y, self.sigma2)

    def followed(self, y: Tensor, steps: int) -> Any:
        """The grad mode of a walk from y, or InputError where a gradient would be unrolled further than allowed."""
        if not (torch.is_grad_enabled() and y.requires_grad):
            return torch.no_grad()
        if steps > self.unroll:
            raise InputError(f"a gradient through up to {steps} steps of {type(self).__name__} was asked for, and "
                             f"unroll is {self.unroll}: take the attack stein, which needs only answers, or set unroll "
                             f"to {steps} or more (memory and time grow with the steps)")
        return nullcontext()


class WalkJump(FrontEnd):
    """Langevin walk, then jump; random (Saremi & Hyvarinen 2019):

        y_0 = x_hat_sigma(y)     y_{t+1} = y_t - delta^2 grad phi'(y_t) + sqrt(2) delta e_t,  e_t ~ N(0, I)
        out = y_tau - sigma'^2 grad phi'(y_tau)

    A random base classifier is certified as any other, with fresh e for each noisy copy. One row costs tau + 2
    gradients of energies.

    Args:
        step: delta, .001 in the paper.
        steps: tau, 100 in the paper.
    """

    random = True

    def __init__(
        self, first: nn.Module, second: nn.Module, sigma: float, sigma2: float, step: float = 0.001, steps: int = 100,
        *, unroll: int = 0,
    ):
        super().__init__(first, second, sigma, sigma2, unroll)
        self.step = check_positive("step", step)
        self.steps = check_count("steps", steps)

    @property
    def draws(self) -> int:
        """Standard normals needed per pixel of each row: one a step."""
        return self.steps

    @property
    def cost(self) -> str:
        return f"{self.steps + 2} denoiser calls"

    def forward(self, y: Tensor, sigma: float | None = None, normals: Normals | None = None) -> Tensor:
        """The sample that the walk from y ends with, (N, C, H, W).

        Raises:
            InputError: no `normals`, another sigma, or a gradient through more steps than `unroll`.
            ModelError: the walk diverged.
        """
        draw = needed(normals)
        with self.followed(y, self.steps):
            x = self.start(y, sigma)
            for t in range(self.steps):
                x = (x - self.step**2 * self.slope(x)).add(draw(t, x), alpha=math.sqrt(2) * self.step)
            x = denoise(self.second, x, self.sigma2)
        if not bool(x.isfinite().all()):
            raise ModelError(f"the walk diverged (values that are not finite) with step {self.step:g} and {self.steps} "
                             f"steps: lower the step; it should stay below sigma2 = {self.sigma2:g}")
        return x


class Flow(NamedTuple):
    """Where a gradient flow ended: x (N, C, H, W), steps taken (N,), and whether ||grad phi'|| < tol there (N,)."""

    x: Tensor
    steps: Tensor
    converged: Tensor

    @property
    def unfinished(self) -> int:
        """Rows that the step limit stopped."""
        return int((~self.converged).sum())


class Attractor(FrontEnd):
    """The end of the gradient flow x' = -grad phi'(x) from x_hat_sigma(y), where ||grad phi'|| < tol; deterministic.

    Each row stops for itself, so that its end does not depend on the batch. One row costs 1 gradient of an energy a
    step (Euler) or 4 (rk4).

    Args:
        tol: bound on ||grad phi'||_2, in units of 1 / pixel; in float32 not below about 1e-7 ||x|| / sigma'^2.
        max_steps: the step limit. Rows that reach it are taken where they are.
        method: "euler", or "rk4" (the classical Runge-Kutta method of order 4).
        step: time of a step; None is sigma'^2, for which an Euler step is x <- x_hat'(x). No curvature of phi' exceeds
            1 / sigma'^2 where phi' is the energy of a density, so that steps below 2 sigma'^2 converge.

    Attributes:
        unfinished: rows of all `forward` calls so far that reached the step limit.
    """

    random = False

    def __init__(
        self, first: nn.Module, second: nn.Module, sigma2: float, tol: float = 0.1, max_steps: int = 1000,
        method: str = "euler", *, step: float | None = None, unroll: int = 0,
    ):
        super().__init__(first, second, None, sigma2, unroll)
        self.tol = check_positive("tol", tol)
        self.max_steps = check_count("max_steps", max_steps)
        self.method = check_known("method of an attractor", method, _CALLS)
        self.step = self.sigma2**2 if step is None else check_positive("step", step)
        self.unfinished = 0

    @property
    def cost(self) -> str:
        return f"at most {2 + self.max_steps * _CALLS[self.method]} denoiser calls"

    def forward(self, y: Tensor, sigma: float | None = None, normals: Normals | None = None) -> Tensor:
        """The attractor of each row, (N, C, H, W); see `flow`. Warns, once, where the step limit stopped a row."""
        found = self.flow(y, sigma)
        if found.unfinished:
            warnings.warn(f"the limit of {self.max_steps} steps stopped rows before ||grad phi'|| < {self.tol:g}: they "
                          f"are taken where they are, and certificates remain valid. Raise max_steps, step or tol",
                          StepLimitWarning, stacklevel=2)
        self.unfinished += found.unfinished
        return found.x

    def flow(self, y: Tensor, sigma: float | None = None) -> Flow:
        """Follow the flow from x_hat(y).

        Raises:
            InputError: another sigma, or a gradient through more steps than `unroll`.
            ModelError: the flow diverged.
        """
        with self.followed(y, self.max_steps):
            x = self.start(y, sigma)
            steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            going = torch.arange(len(x), device=x.device)
            for taken in range(self.max_steps + 1):
                here = x[going]
                slope = self.slope(here)
                keep = self._norms(slope) >= self.tol
                going, here, slope = going[keep], here[keep], slope[keep]
                if taken == self.max_steps or not len(going):
                    break
                x = x.index_copy(0, going, self._moved(here, slope))
                steps[going] += 1
        converged = torch.ones(len(x), dtype=torch.bool, device=x.device)
        converged[going] = False
        return Flow(x, steps, converged)

    def _moved(self, x: Tensor, slope: Tensor) -> Tensor:
        """x after one step, `slope` being grad phi'(x)."""
        h = self.step
        if self.method == "euler":
            return x - h * slope
        second = self.slope(x - h / 2 * slope)
        third = self.slope(x - h / 2 * second)
        return x - h / 6 * (slope + 2 * second + 2 * third + self.slope(x - h * third))

    def _norms(self, slope: Tensor) -> Tensor:
        norms = slope.detach().flatten(1).norm(dim=1)
        if not bool(norms.isfinite().all()):
            raise ModelError(f"the flow diverged (gradients that are not finite) with step {self.step:g}: lower the "
                             f"step; the default is sigma2^2 = {self.sigma2**2:g}")
        return norms
