"""The parts are found by their names, and do what they say."""

import torch

from smoothcert.models import build_model
from smoothcert.objectives import Step, build_objective


def test_the_focal_loss_is_the_cross_entropy_at_power_0():
    model = build_model("tiny", (1, 8, 8), 10, width=16)
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])

    def loss_of(name, **options):
        step = Step(torch.Generator().manual_seed(0), epoch=0.0)
        return build_objective(name, 0.25, **options).loss(model, images, labels, step).total

    torch.testing.assert_close(loss_of("focal", power=0.0), loss_of("gaussian"))
    assert loss_of("focal") < loss_of("gaussian")
