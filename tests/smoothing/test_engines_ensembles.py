"""Early stopping: the votes of the full mean, whatever the networks answer."""

import pytest
import torch
from torch import Tensor, nn

from smoothcert import SmoothedClassifier
from smoothcert.models import build_model
from smoothcert.smoothing.engines import open_engine
from smoothcert.smoothing.engines.ensembles import ROOM, EarlyStop
from smoothcert.smoothing.ensemble import Ensemble
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.voters import is_close

K = 4


class Table(nn.Module):
    """Answers row i, whose first entry is i, by row i of a table of logits."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, rows: Tensor) -> Tensor:
        return self.logits[rows[:, 0].long()]


def stopped(tables: list[Tensor], weights: list[float] | None, stops: bool = True) -> tuple[Tensor, Tensor, EarlyStop]:
    """The logits of the plain ensemble and of the early stop, for all rows of the tables."""
    ensemble = Ensemble([Table(table) for table in tables], "probabilities", weights)
    run = EarlyStop([Passes(member, K, 7) for member in ensemble.members], ensemble.weights.tolist(), stops)
    rows = torch.arange(float(len(tables[0])))[:, None]
    return ensemble(rows), run(rows), run


def tables(spread: float, count: int, rows: int = 3000) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    common = torch.randn(rows, K, generator=generator)
    return [spread * (common + torch.randn(rows, K, generator=generator)) for _ in range(count)]


@pytest.mark.parametrize("weights", [None, [2, 2, 1, 1, 1], [1, 1, 1, 1, 9], [0.1, 3, 0.2, 5, 1]])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 40.0, 1000.0])
def test_votes_are_those_of_the_full_mean(spread, weights):
    plain, found, run = stopped(tables(spread, 5), weights)
    assert torch.equal(found.argmax(1), plain.argmax(1))
    assert found.isfinite().all()
    full, everything, _ = stopped(tables(spread, 5), weights, stops=False)
    assert torch.allclose(everything, full, rtol=1e-5, atol=1e-5)
    assert sum(run.judged) <= 5 * 3000


def test_the_worst_answers_of_the_rest_change_no_vote():
    """Three of five agree with margins around the bound of 2/5, and the other two are sure of the runner-up."""
    margins = torch.linspace(0.60, 0.76, 400)
    first = (1 + margins) / 2
    sure = torch.stack([first, 1 - first, *[torch.full_like(first, 1e-9)] * (K - 2)], dim=1).log()
    against = torch.tensor([-60.0, 0.0, -60.0, -60.0]).expand(400, K)
    plain, found, run = stopped([sure, sure, sure, against, against], None)
    assert torch.equal(found.argmax(1), plain.argmax(1))
    decided = int((0.6 * margins > 0.4 + ROOM).sum())
    assert 0 < decided < 400
    assert run.judged == [400, 400, 400, 400 - decided, run.judged[4]]
    assert set(plain.argmax(1).tolist()) == {0, 1}


def test_a_decided_row_is_no_close_call_and_an_open_one_keeps_its_logits():
    sure = [torch.tensor([[9.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]])] * 5
    plain, found, run = stopped(sure, None)
    assert not is_close(found)[0]
    assert torch.allclose(found[1], plain[1], atol=1e-6)
    assert float(found[0, 0].exp()) == pytest.approx(0.6 * float(sure[0][0].softmax(0)[0]) + 0.4, abs=1e-6)
    assert run.judged == [2, 2, 2, 1, 1]


def test_the_heaviest_decide_first():
    sure = [torch.tensor([[9.0, 0.0, 0.0, 0.0]])] * 5
    assert stopped(sure, [1, 1, 2, 2, 1])[2].judged == [0, 0, 1, 1, 0]
    assert stopped(sure, [1, 1, 1, 1, 9])[2].judged == [0, 0, 0, 0, 1]


def test_nan_is_never_decided():
    broken = [torch.full((1, K), torch.nan), *[torch.tensor([[9.0, 0.0, 0.0, 0.0]])] * 4]
    _, found, run = stopped(broken, None)
    assert found.isnan().any()
    assert run.judged == [1] * 5


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = [build_model("cnn", (1, 6, 6), K, width=4).eval() for _ in range(3)]
    for network in made:
        for parameter in network.parameters():
            parameter.data *= 2.5
    return made


def test_the_engine_of_an_ensemble_counts_what_the_plain_one_counts(networks):
    """Through the sampler, with its batches, its close calls and their judge."""
    image = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(3))
    found = [SmoothedClassifier(Ensemble(networks, "probabilities").eval(), 0.5, num_classes=K, seed=1, engine=engine)
             .certify(image, n0=50, n=4000) for engine in ("plain", "eager")]
    assert found[0] == found[1]
    assert found[0].looks[-1].n == 4000


def test_only_a_mean_of_probabilities_in_float32_is_run_by_members(networks):
    how = {"shape": (1, 6, 6), "batch": 16, "device": torch.device("cpu")}
    soft, hard = (Ensemble(networks, mean).eval() for mean in ("probabilities", "logits"))
    taken = open_engine("eager", soft, **how)
    assert isinstance(taken.run, EarlyStop)
    assert (taken.name, taken.batch) == ("eager", 128)
    assert not isinstance(open_engine("eager", hard, **how).run, EarlyStop)
    assert not isinstance(open_engine("plain", soft, **how).run, EarlyStop)
    rows = torch.rand(200, 1, 6, 6)
    with torch.no_grad():
        assert torch.equal(taken.run(rows).argmax(1), soft(rows).argmax(1))
