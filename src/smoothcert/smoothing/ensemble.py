"""Several networks as one base classifier: the mean of their logits, or of their probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from smoothcert.errors import InputError, ModelError

MEANS = ("logits", "probabilities")


class Ensemble(nn.Module):
    """The weighted mean of the answers of L networks, as logits: images (N, ...) -> (N, K).

        logits:         sum_l w_l z_l
        probabilities:  log sum_l w_l softmax(z_l)

    with w_1 + ... + w_L = 1. The softmax of the second is the mean of the networks' probabilities, which are bounded:
    engines on a CPU leave out networks that cannot change a vote any more (see `engines.ensembles`).

    Args:
        members: networks from images (N, ...) to logits (N, K), in eval mode, at least two.
        mean: one of `MEANS`.
        weights: numbers above 0 in proportion to w; None weighs all alike.
    Raises:
        InputError: fewer than two members, members that are no modules, another mean, or weights that do not fit.
    """

    weights: Tensor

    def __init__(self, members: Sequence[nn.Module], mean: str = "logits", weights: Sequence[float] | None = None):
        super().__init__()
        members = list(members)
        if len(members) < 2 or not all(isinstance(member, nn.Module) for member in members):
            raise InputError(f"an ensemble has at least two members, all of them torch modules, got {len(members)}: "
                             f"{', '.join(type(member).__name__ for member in members)}")
        if mean not in MEANS:
            raise InputError(f"mean must be logits or probabilities, got {mean!r}")
        try:
            given = [1.0] * len(members) if weights is None else [float(weight) for weight in weights]
        except (TypeError, ValueError):
            given = []
        if len(given) != len(members) or not (min(given) > 0 and sum(given) < float("inf")):
            raise InputError(f"weights must be {len(members)} finite numbers above 0, one for each member, got "
                             f"{weights}")
        self.members, self.mean = nn.ModuleList(members), mean
        self.register_buffer("weights", torch.tensor(given, dtype=torch.float64).div(sum(given)).float())
        self.training = members[0].training

    def forward(self, images: Tensor) -> Tensor:
        answers = [member(images) for member in self.members]
        if self.mean == "probabilities":
            answers = [log_softmax(answer, dim=1) for answer in answers]
        try:
            stacked = torch.stack(answers)
        except RuntimeError:
            raise ModelError(f"the members of an ensemble must have the same classes, got logits of shapes "
                             f"{', '.join(str(tuple(answer.shape)) for answer in answers)}") from None
        weights = self.weights.view(-1, 1, 1)
        if self.mean == "logits":
            return (weights * stacked).sum(dim=0)
        return (weights.log() + stacked).logsumexp(dim=0)
