"""`clean`: cross-entropy on the images as they are; the undefended baseline."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch


@dataclass(frozen=True)
class Clean(WholeBatch):
    """Minimise CE(F(x), y)."""

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        return Loss(cross_entropy(model(images), labels))
