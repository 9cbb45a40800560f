"""Ensembles whose members stop early: one member after another judges only the rows whose vote is still open.

A member's probabilities lie in [0, 1] and sum to 1, so that it moves the difference of two classes by at most its
weight. After members 1 ... k of an ensemble, with S their weighted sum of probabilities and R the weights of the rest,

    S_a - S_b > R for the top class a and every other class b

decides the vote: whatever the rest answers, a keeps the largest mean. No bound on a network's logits holds for every
input, so that a mean of logits has no such rule; nor can any exact rule stop before more than half of the weight has
judged, because the rest could be of one other mind.

Rounding has room: rows count as decided only from a difference of R + `ROOM` on, a hundred times what moves a float32
probability. A decided row gets the logits that it would have if the rest agreed with it, so that it is no close call.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from smoothcert.smoothing.ensemble import Ensemble
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.voters import CLOSE_CALL

ROOM = CLOSE_CALL
"""The difference of mean probabilities beyond R that a vote must have to be decided."""

TOGETHER = 8
"""Batches of a member that are judged at once, so that those rows of them that stay open fill batches again."""


class EarlyStop:
    """A forward pass of an ensemble that leaves out the members that cannot change a vote.

    Args:
        members: a pass of each member.
        weights: of the members, summing to 1.
    Attributes:
        stops: False lets every member judge every row.
        judged: the rows that each member has judged so far, in the order of `members`.
    """

    def __init__(self, members: Sequence[Passes], weights: Sequence[float], stops: bool = True) -> None:
        self._members, self._weights, self.stops = members, weights, stops
        self._order = sorted(range(len(members)), key=lambda k: -weights[k])  # the heaviest decide soonest
        self.judged = [0] * len(members)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return logits (N, K): those of the mean of probabilities, or others with the same vote."""
        found, total = None, None
        places, rest = torch.arange(len(rows)), 1.0
        for k in self._order:
            self.judged[k] += len(rows)
            answer = log_softmax(self._members[k].logits(rows), dim=1) + math.log(self._weights[k])
            total = answer if total is None else torch.logaddexp(total, answer)
            rest -= self._weights[k]
            if k == self._order[-1] or not self.stops or rest >= 0.5:  # S_a - S_b is at most the weight that judged
                continue
            first, second = total.topk(2, dim=1).values.exp_().unbind(dim=1)
            decided = first - second > rest + ROOM
            if not decided.any():
                continue
            found = total.new_empty(len(places), total.shape[1]) if found is None else found
            done = decided.nonzero().squeeze(1)
            answers = total[done]
            answers.scatter_(1, answers.argmax(dim=1, keepdim=True), (first[done] + rest).log_().unsqueeze(1))
            found[places[done]] = answers
            left = (~decided).nonzero().squeeze(1)
            rows, places, total = rows[left], places[left], total[left]
            if not len(left):
                break
        assert total is not None
        if found is None:
            return total
        found[places] = total
        return found


def stops_early(model: object) -> bool:
    """Tell if a model is an ensemble whose members need not all judge every row."""
    return isinstance(model, Ensemble) and model.mean == "probabilities"
