"""Objectives that train a denoiser, or a classifier behind one: against formulas, differences and closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smoothcert.denoise import (
    DenoisedClassifier,
    DirectEstimator,
    GaussianDenoiser,
    MixtureDenoiser,
    WalkJump,
    asymmetry,
    build_denoiser,
)
from smoothcert.errors import InputError, ModelError
from smoothcert.objectives import OBJECTIVES, Step, build_objective
from smoothcert.smoothing.soft import add_noise, draw_noise

SIGMA = 0.5
IMAGES = torch.rand(6, 1, 2, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
LABELS = torch.arange(6) % 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def denoiser(name: str = "energy-residual", seed: int = 0, shape=(1, 2, 3), **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_denoiser(name, shape, SIGMA, **{"network": "mlp", "width": 8, "depth": 1, **options}).double()


def classifier(seed: int = 0, batchnorm: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norm = nn.BatchNorm1d(8) if batchnorm else nn.Identity()
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), norm, nn.SiLU(), nn.Linear(8, 3)).double()


def composition(name: str = "energy-residual", batchnorm: bool = True, **options) -> DenoisedClassifier:
    return DenoisedClassifier(denoiser(name, **options).requires_grad_(False), classifier(batchnorm=batchnorm), SIGMA)


def loss_of(objective, model, images=IMAGES, labels=LABELS, seed=0, epoch=100.0):
    return objective.loss(model, images, labels, Step(generator(seed), epoch))


def differences(function, parameter: Tensor, h: float = 1e-6) -> Tensor:
    """Central differences of a number with respect to every entry of a tensor, which is put back."""
    flat = parameter.detach().view(-1)
    found = torch.zeros_like(flat)
    for k in range(len(flat)):
        kept, sides = flat[k].item(), []
        for side in (h, -h):
            flat[k] = kept + side
            sides.append(function())
        flat[k] = kept
        found[k] = (sides[0] - sides[1]) / (2 * h)
    return found.view_as(parameter)


class Wrapped(nn.parallel.DistributedDataParallel):
    """As a network of several processes is seen: they meet in its forward pass."""

    def __init__(self, module: nn.Module):
        nn.Module.__init__(self)
        self.module, self.meetings = module, 0

    def forward(self, *inputs, **named):
        self.meetings += 1
        return self.module(*inputs, **named)


DENOISERS = [
    ("deen", {}, denoiser),
    ("deen", {}, lambda: denoiser("energy-scalar", network="conv", depth=2)),
    ("deen", {"sigmas": [0.25, 0.5]}, lambda: denoiser(conditioned=True)),
    ("denoise", {}, lambda: denoiser("direct", network="dncnn", depth=3)),
    ("denoise", {"stability": 2.0, "classifier": classifier()}, lambda: denoiser("direct")),
]
ROWS = [*DENOISERS, ("xhat", {"steps": 2}, composition), ("xhat", {"eps": 0.0, "m": 3}, composition)]


@pytest.mark.parametrize(("name", "options", "model"), ROWS)
class TestEveryOne:
    def test_a_training_step(self, name, options, model):
        """Finite, a function of the generator alone, gradients for all that is trained, and nothing else touched."""
        objective, network = build_objective(name, SIGMA, **options), model()
        before, state = [p.clone() for p in network.parameters()], torch.get_rng_state()
        loss = loss_of(objective, network.train())
        assert loss.total.ndim == 0
        assert all(v.isfinite() and v.ndim == 0 for v in (loss.total, *loss.parts.values()))
        assert not {"loss", "lr", "epoch", "seconds"} & loss.parts.keys()
        assert loss_of(objective, model(), epoch=0.0).parts.keys() == loss.parts.keys()
        assert torch.equal(loss_of(objective, model()).total, loss.total)
        assert not torch.equal(loss_of(objective, model(), seed=1).total, loss.total)
        assert torch.equal(state, torch.get_rng_state())
        loss.total.backward()
        for p, old in zip(network.parameters(), before, strict=True):
            assert torch.equal(p, old)
            assert (p.grad is not None and bool(p.grad.isfinite().all())) == p.requires_grad
        assert any(p.grad.abs().sum() > 0 for p in network.parameters() if p.requires_grad)
        assert network.training

    def test_a_batch_of_one_and_the_whole_batch_is_one_part(self, name, options, model):
        objective = build_objective(name, SIGMA, **options)
        assert loss_of(objective, model().eval(), IMAGES[:1], LABELS[:1]).total.isfinite()
        (part,) = objective.split(6)
        assert list(part) == list(range(6))

    def test_under_bfloat16_autocast(self, name, options, model):
        options = {k: v.float() if isinstance(v, nn.Module) else v for k, v in options.items()}
        network, objective = model().float(), build_objective(name, SIGMA, **options)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = loss_of(objective, network, IMAGES.float()).total
        total.backward()
        assert total.isfinite()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)
        for value in options.values():
            if isinstance(value, nn.Module):
                value.double()

    def test_in_a_network_of_several_processes(self, name, options, model):
        objective, wrapped = build_objective(name, SIGMA, **options), Wrapped(model())
        assert torch.equal(loss_of(objective, wrapped).total, loss_of(objective, model()).total)
        assert wrapped.meetings == 1


def test_an_objective_says_what_it_trains():
    assert {name for name, kind in OBJECTIVES.items() if kind.trains == "denoiser"} == {"deen", "denoise"}
    assert all(kind.trains == "classifier" for name, kind in OBJECTIVES.items() if name not in ("deen", "denoise"))


class TestDeen:
    def test_by_hand_and_without_labels(self):
        """Known x_hat: the mean over images of the sum over pixels of (x - beta (x + e))^2."""
        model = GaussianDenoiser(0.7)
        beta = model.beta(SIGMA)
        e = add_noise(torch.zeros_like(IMAGES), SIGMA, generator())
        expected = (IMAGES - beta * (IMAGES + e)).square().sum() / 6
        for labels in (LABELS, LABELS * 0 - 1):
            assert torch.allclose(loss_of(build_objective("deen", SIGMA), model, labels=labels).total, expected)

    def test_its_gradient_is_the_double_backward_against_differences(self):
        objective, model = build_objective("deen", SIGMA), denoiser()
        found = torch.autograd.grad(loss_of(objective, model).total, list(model.parameters()))
        for p, gradient in zip(model.parameters(), found, strict=True):
            exact = differences(lambda: float(loss_of(objective, model).total.detach()), p)
            assert torch.allclose(gradient, exact, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("name", ["energy-residual", "energy-scalar"])
    def test_on_gaussian_data_it_finds_beta(self, name):
        """X ~ N(0, s0^2 I): the trained x_hat's slope is 1 / (1 + sigma^2 / s0^2) within 2 %."""
        s0, draw = 0.8, generator(1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build_denoiser(name, (1, 2, 2), SIGMA, width=32, depth=1)
        objective, steps = build_objective("deen", SIGMA), 300
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            images = s0 * torch.randn(256, 1, 2, 2, generator=draw)
            objective.loss(model, images, torch.zeros(256), Step(draw, 0.0)).total.backward()
            optimizer.step()
            schedule.step()
        y = math.hypot(s0, SIGMA) * torch.randn(4000, 1, 2, 2, generator=draw)
        slope = float((model(y).detach() * y).sum() / y.square().sum())
        assert slope == pytest.approx(GaussianDenoiser(s0).beta(SIGMA), rel=0.02)

    def test_sigmas_are_drawn_for_each_batch(self):
        model, seen = denoiser(conditioned=True), set()
        for seed in range(30):
            loss = loss_of(build_objective("deen", SIGMA, sigmas=[0.25, 0.5, 1.0]), model, seed=seed)
            seen.add(float(loss.parts["sigma"]))
        assert seen == {0.25, 0.5, 1.0}
        drawn = torch.tensor([float(loss_of(build_objective("deen", SIGMA, sigmas="0.2:0.8"), model, seed=seed)
                                    .parts["sigma"]) for seed in range(200)])
        assert 0.2 <= drawn.min() < 0.25
        assert 0.75 < drawn.max() <= 0.8
        assert abs(float(drawn.mean()) - 0.5) < 4 * 0.6 / math.sqrt(12 * 200)

    def test_a_drawn_sigma_is_the_noises_and_the_denoisers(self):
        """Known x_hat at sigma .9, whatever the run's sigma."""
        model = GaussianDenoiser(0.7)
        loss = loss_of(build_objective("deen", SIGMA, sigmas=[0.9]), model)
        draw = generator()
        torch.rand((), generator=draw, dtype=torch.float64)
        noisy = add_noise(IMAGES, 0.9, draw)
        assert torch.allclose(loss.total, (IMAGES - model.beta(0.9) * noisy).square().sum() / 6)

    @pytest.mark.parametrize(("model", "options", "words"), [
        (denoiser("direct"), {}, "trains an energy.*DirectEstimator.*denoise"),
        (classifier(), {}, "trains an energy"), (denoiser(), {"sigmas": [0.5]}, "conditioned=true.*sigma 0.5"),
        (GaussianDenoiser(1.0, 0.25), {}, "0.25.*0.5"),
    ])
    def test_models_it_does_not_take(self, model, options, words):
        with pytest.raises(InputError, match=words):
            loss_of(build_objective("deen", SIGMA, **options), model)

    @pytest.mark.parametrize("sigmas", [[], [0.5, 0.0], "0.5", "1:0.5", "a:b", "0.1:0.2:0.3", 0.5, ["0.5"], True])
    def test_bad_levels(self, sigmas):
        for name in ("deen", "denoise"):
            with pytest.raises(InputError, match="sigmas"):
                build_objective(name, SIGMA, sigmas=sigmas)


class TestDenoise:
    def test_it_is_the_squared_error_and_for_an_energy_deens(self):
        model = denoiser("direct")
        noisy = add_noise(IMAGES, SIGMA, generator())
        loss = loss_of(build_objective("denoise", SIGMA), model)
        assert torch.allclose(loss.total, (IMAGES - model(noisy)).square().sum() / 6)
        pair = [loss_of(build_objective(name, SIGMA), denoiser()).total for name in ("deen", "denoise")]
        assert torch.equal(*pair)

    def test_stability_asks_a_frozen_classifier_for_its_own_label(self):
        model, judge = denoiser("direct"), classifier().train()
        state = {name: value.clone() for name, value in judge.state_dict().items()}
        loss = loss_of(build_objective("denoise", SIGMA, stability=0.3, classifier=judge), model)
        assert judge.training
        assert all(torch.equal(state[name], value) for name, value in judge.state_dict().items())
        loss.total.backward()
        assert all(p.grad is None and p.requires_grad for p in judge.parameters())
        estimate = model(add_noise(IMAGES, SIGMA, generator()))
        judge.eval()
        expected = cross_entropy(judge(estimate), judge(IMAGES).argmax(dim=1))
        assert torch.allclose(loss.parts["stability"], expected)
        assert torch.allclose(loss.parts["squared_error"], (IMAGES - estimate).square().sum() / 6)
        assert torch.allclose(loss.total, loss.parts["squared_error"] + 0.3 * expected)
        (IMAGES - estimate).square().sum().div(6).add(0.3 * expected).backward()  # a second time the same gradient
        first = [p.grad.clone() / 2 for p in model.parameters()]
        model.zero_grad()
        loss_of(build_objective("denoise", SIGMA, stability=0.3, classifier=judge), model).total.backward()
        assert all(torch.allclose(a, p.grad) for a, p in zip(first, model.parameters(), strict=True))

    def test_trained_it_nears_the_least_squares_estimator(self):
        """A mixture of two Gaussians, whose best error is known by its closed form; its Jacobian nears symmetry."""
        mu, s0, draw = torch.full((1, 2, 2), 0.5), 0.1, generator(2)
        exact = MixtureDenoiser(mu, s0, SIGMA)

        def sample(n: int) -> Tensor:
            signs = torch.randint(2, (n, 1, 1, 1), generator=draw) * 2 - 1
            return signs * mu + s0 * torch.randn(n, 1, 2, 2, generator=draw)

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build_denoiser("direct", (1, 2, 2), SIGMA, network="mlp", width=32, depth=1)
        objective, optimizer = build_objective("denoise", SIGMA), torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(300):
            optimizer.zero_grad()
            objective.loss(model, sample(256), torch.zeros(256), Step(draw, 0.0)).total.backward()
            optimizer.step()
        x = sample(4000)
        y = add_noise(x, SIGMA, draw)
        best, found, identity = ((x - z).square().sum() / 4000 for z in (exact(y), model(y).detach(), y))
        assert best < found < 1.3 * best
        assert found < 0.5 * identity
        assert asymmetry(model, y[:50], 10, draw).median() < 0.3

    @pytest.mark.parametrize(("options", "words"), [
        ({"stability": 1.0}, "go together"), ({"classifier": classifier()}, "go together"),
        ({"stability": -1.0}, "stability"), ({"stability": 1.0, "classifier": "linear"}, "torch module"),
    ])
    def test_bad_options(self, options, words):
        with pytest.raises(InputError, match=words):
            build_objective("denoise", SIGMA, **options)

    def test_what_changes_the_shape_is_refused(self):
        with pytest.raises(ModelError, match="input's shape"):
            loss_of(build_objective("denoise", SIGMA), DirectEstimator(nn.Flatten(), SIGMA))


class TestXhat:
    def test_without_an_attack_it_is_cross_entropy_at_x_hat(self):
        model = composition().eval()
        loss = loss_of(build_objective("xhat", SIGMA, eps=0.0, m=1), model)
        noisy = IMAGES + draw_noise(IMAGES, 1, SIGMA, generator())[:, 0]
        assert torch.allclose(loss.total, cross_entropy(model.classifier(model.denoiser(noisy)), LABELS))
        assert loss.parts == {}

    def test_j_is_minus_the_logarithm_of_the_mean_probability(self):
        model = composition().eval()
        noise = draw_noise(IMAGES, 4, SIGMA, generator())
        probability = torch.stack([model(IMAGES + noise[:, i]).softmax(dim=1) for i in range(4)]).mean(dim=0)
        expected = -probability[torch.arange(6), LABELS].log().mean()
        assert torch.allclose(loss_of(build_objective("xhat", SIGMA, eps=0.0, m=4), model).total, expected)

    @pytest.mark.parametrize("name", ["energy-residual", "direct"])
    @pytest.mark.parametrize("clamp", [False, True])
    def test_its_three_gradients_against_differences(self, name, clamp):
        """grad_y phi in x_hat; grad_x J through the denoiser, which PGD follows; grad_theta J with x_hat held."""
        model = composition(name, batchnorm=False)
        objective = build_objective("xhat", SIGMA, m=2, eps=0.3, steps=1, clamp=clamp)
        inputs: list[Tensor] = []
        hook = model.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
        loss = loss_of(objective, model)
        hook.remove()
        noise = draw_noise(IMAGES, 2, SIGMA, generator())

        def j(x: Tensor) -> Tensor:
            with torch.no_grad():
                copies = model((x[:, None] + noise).flatten(0, 1)).log_softmax(dim=1).unflatten(0, (6, 2))
                return -(copies.exp().mean(dim=1).log()[torch.arange(6), LABELS])

        if name == "energy-residual":
            phi = model.denoiser.energy
            x = IMAGES.clone()
            slope = differences(lambda: phi(x).sum().item(), x)
            assert torch.allclose(model.estimate(IMAGES), IMAGES - SIGMA**2 * slope, atol=1e-7)
        x = IMAGES.clone()
        ascent = differences(lambda: j(x).sum().item(), x)
        delta = 2 * 0.3 * ascent / ascent.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        allowed = (IMAGES + delta).clamp(0, 1) - IMAGES if clamp else delta
        norms = allowed.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        attacked = IMAGES + allowed * (0.3 / norms).clamp(max=1)
        assert clamp == bool(((attacked >= 0) & (attacked <= 1)).all())
        assert torch.allclose(inputs[0].unflatten(0, (6, 2)), IMAGES[:, None] + noise)
        assert torch.allclose(inputs[-1].unflatten(0, (6, 2)), attacked[:, None] + noise, atol=1e-6)
        assert torch.allclose(loss.total, j(attacked).mean(), atol=1e-6)
        trained = list(model.classifier.parameters())
        found = torch.autograd.grad(loss.total, trained)
        exact_at = inputs[-1].unflatten(0, (6, 2))[:, 0] - noise[:, 0]
        for p, gradient in zip(trained, found, strict=True):
            exact = differences(lambda: j(exact_at).mean().item(), p)
            assert torch.allclose(gradient, exact, rtol=1e-5, atol=1e-7)

    def test_the_attack_raises_the_loss_within_eps_and_warms_up(self):
        model = composition().eval()
        plain = loss_of(build_objective("xhat", SIGMA, eps=0.0, m=2), model).total
        rule = build_objective("xhat", SIGMA, eps=0.4, m=2, steps=8, warmup=4)
        last = plain
        for epoch, eps in ((0.0, 0.1), (1.0, 0.2), (9.0, 0.4)):
            loss = loss_of(rule, model, epoch=epoch)
            assert loss.total > last
            last = loss.total
            assert float(loss.parts["eps"]) == pytest.approx(eps)
            assert 0.7 * eps < float(loss.parts["perturbation"]) <= eps

    def test_it_learns_behind_the_denoiser_and_leaves_that_alone(self):
        labels = torch.arange(32) % 2
        images = (0.3 + 0.4 * labels.double()).view(-1, 1, 1, 1) + 0.1 * torch.rand(32, 1, 2, 3, generator=generator(),
                                                                                 dtype=torch.float64)
        model = composition()
        before = [p.clone() for p in model.denoiser.parameters()]
        objective = build_objective("xhat", SIGMA, eps=0.1, steps=2)
        optimizer, draw = torch.optim.Adam(model.classifier.parameters(), 0.02), generator(1)
        for _ in range(40):
            optimizer.zero_grad()
            objective.loss(model, images, labels, Step(draw, 0.0)).total.backward()
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(before, model.denoiser.parameters(), strict=True))
        with torch.no_grad():
            right = model.eval()(add_noise(images, 0.1, draw)).argmax(dim=1) == labels
        assert right.double().mean() > 0.9

    @pytest.mark.parametrize("name", ["smoothadv", "adre", "gaussian", "consistency", "macer"])
    def test_the_other_objectives_compose_with_a_denoiser(self, name):
        options = {"steps": 2} if name == "smoothadv" else {"eps": 0.2, "k": 2} if name == "adre" else {}
        model = composition()
        loss_of(build_objective(name, SIGMA, **options), model).total.backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())

    @pytest.mark.parametrize(("model", "words"), [
        (classifier(), "Sequential has none in front of it.*smoothadv"),
        (lambda x: x, "behind a denoiser"),
        (DenoisedClassifier(denoiser(), classifier(), SIGMA), r"freeze.*requires_grad_\(False\)"),
        (DenoisedClassifier(WalkJump(GaussianDenoiser(1.0), GaussianDenoiser(1.0), SIGMA, 0.1), classifier(), SIGMA),
         "random"),
    ])
    def test_models_it_does_not_take(self, model, words):
        with pytest.raises(InputError, match=words):
            loss_of(build_objective("xhat", SIGMA), model)

    @pytest.mark.parametrize(("options", "words"), [
        ({"m": 0}, "m must"), ({"eps": -0.1}, "eps"), ({"steps": 0}, "steps"), ({"warmup": -1}, "warmup"),
        ({"lam": 1}, "no option 'lam'"),
    ])
    def test_bad_options(self, options, words):
        with pytest.raises(InputError, match=words):
            build_objective("xhat", SIGMA, **options)
