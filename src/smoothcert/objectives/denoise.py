"""`denoise`: a direct denoiser trained in squared error, as in denoised smoothing (Salman et al. 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smoothcert.checks import check_weight
from smoothcert.errors import InputError
from smoothcert.objectives.deen import DENOISING, read_levels, squared_error
from smoothcert.objectives.protocol import Loss, Model, Step, Trained, WholeBatch, check_classifier
from smoothcert.smoothing.soft import freeze


@dataclass(frozen=True)
class Denoise(WholeBatch):
    """Minimise E ||x - x_hat(x + e)||^2 + stability CE(F(x_hat(x + e)), f(x)), e ~ N(0, sigma^2 I).

    The second term, with a weight above 0, asks a given frozen classifier F to answer x_hat as it answers x: f(x) is
    its
    own label of the clean image (the paper's stability objective). Labels are not used.

    Attributes:
        sigmas: as for `deen`.
        stability: weight of the second term beside squared errors summed over an image's pixels.
        classifier: F, images -> logits; needed if `stability` is above 0, and refused otherwise.
    """

    trains: ClassVar[Trained] = "denoiser"
    prefers: ClassVar[Mapping[str, Any]] = DENOISING

    sigma: float
    sigmas: Sequence[float] | str | None = None
    stability: float = 0.0
    classifier: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.sigmas is not None:
            read_levels(self.sigmas)
        check_weight("stability", self.stability)
        check_classifier(self.classifier)
        if (self.stability > 0) != (self.classifier is not None):
            raise InputError("stability above 0 and classifier go together: stability weighs how the classifier "
                             "answers the denoised image")

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        error, estimate, parts = squared_error(self.sigma, self.sigmas, model, images, step)
        if self.classifier is None:
            return Loss(error, parts)
        with freeze(self.classifier) as network:
            wanted = network(images).argmax(dim=1)
            stability = cross_entropy(network(estimate), wanted)
        return Loss(error + self.stability * stability, {**parts, "squared_error": error, "stability": stability})
