"""What holds for every objective: passes, gradients, randomness, and options."""

import dataclasses
import math
import weakref

import pytest
import torch
from torch import Tensor, nn

from objective_batches import (
    IMAGES,
    LABELS,
    PIXEL,
    PIXEL_LABELS,
    generator,
    gradients,
    logistic,
    loss_of,
    network,
)
from smoothcert.errors import ConfigError, InputError
from smoothcert.objectives import OBJECTIVES, Step, build_objective

JUDGE = network(seed=1)
CASES: dict[str, list[dict]] = {
    "gaussian": [{}],
    "clean": [{}],
    "smoothadv": [{"warmup": 0}, {"m": 1, "steps": 1}, {"m": 4, "attack": "ddn"}],
    "adre": [{}, {"k": 1}, {"k": 3, "eps": 0.5}, {"single_draw": True, "cap": None}, {"regulariser": "gap"},
             {"k": 2, "eps": 0.2, "regulariser": "gap", "label_smoothing": 0.1}],
    "stability": [{}],
    "trades": [{"steps": 2}],
    "adversarial": [{"steps": 2}],
    "macer": [{}, {"k": 4, "robust_from": 2}],
    "consistency": [{}, {"m": 4, "lam": 5, "eta": 0}],
    "smoothmix": [{"steps": 2, "warmup": 0}, {"m": 1, "steps": 1, "step_size": 0.3}],
    "cat-rs": [{"steps": 2, "classifier": JUDGE}, {"m": 1, "steps": 1, "lam": 0, "classifier": JUDGE}],
    "nal": [{"K": 2, "s": 2}, {"K": 1, "s": 1, "resample": False}],
    "wrm": [{"steps": 2}],
}
ROWS = [pytest.param(name, options, id=f"{name} {dict(o for o in options.items() if o[0] != 'classifier')}")
        for name, rows in CASES.items() for options in rows]
FORWARDS = {"gaussian": 1, "clean": 1, "smoothadv": 3, "adre": 1, "stability": 1, "trades": 4, "adversarial": 3,
            "macer": 1, "consistency": 1, "smoothmix": 3, "cat-rs": 3, "nal": 3, "wrm": 4}
"""Passes of the network a step, for each row's first case: as many as the papers' methods need."""

WITH_A_DENOISER = {"deen", "denoise", "xhat"}
"""These train or need a denoiser; test_denoise.py has their tests."""


def brightness() -> nn.Module:
    """A classifier of dark (0) and bright (1) images."""
    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 16))
        linear.bias.copy_(torch.tensor([8.0, -8.0]))
    return nn.Sequential(nn.Flatten(), linear)


class TestEveryObjective:
    def test_each_is_in_the_table(self):
        assert CASES.keys() == FORWARDS.keys() == OBJECTIVES.keys() - WITH_A_DENOISER

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_a_training_step(self, name, options):
        """Finite loss and named finite parts, gradients everywhere, a function of the generator alone; the model is
        left as one training pass leaves it."""
        objective, model = build_objective(name, 0.5, **options), network()
        before = [p.clone() for p in model.parameters()]
        images, labels, state = IMAGES.clone(), LABELS.clone(), torch.get_rng_state()
        loss = loss_of(objective, model, images, labels)
        assert loss.total.ndim == 0
        assert loss.total.isfinite()
        for part, value in loss.parts.items():
            assert part not in {"loss", "lr", "epoch", "seconds", "validation_loss", "validation_accuracy"}
            assert value.ndim == 0, part
            assert value.isfinite(), part
        assert loss_of(objective, network(), epoch=0.0).parts.keys() == loss.parts.keys()
        assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(images, IMAGES)
        assert torch.equal(labels, LABELS)
        assert all(m.training for m in model.modules())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert int(model[1].num_batches_tracked) == 1
        found = gradients(loss.total, model)
        assert all(g is not None and g.isfinite().all() for g in found)
        assert all(g.abs().sum() > 0 for g in found[1:])  # BatchNorm swallows the convolution's bias
        again, other = loss_of(objective, network()).total, loss_of(objective, network(), seed=1).total
        assert torch.equal(again, loss.total)
        assert name in ("clean", "adversarial", "wrm") or not torch.equal(other, loss.total)

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_a_batch_of_one_and_every_image_in_some_part(self, name, options):
        objective = build_objective(name, 0.5, **options)
        assert loss_of(objective, network(), IMAGES[:1], LABELS[:1]).total.isfinite()
        for size in (1, 2, 5, 6):
            parts = objective.split(size)
            assert all(len(part) > 0 for part in parts)
            assert [row for part in parts for row in part] == list(range(size))

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_it_learns(self, name, options):
        """Bright and dark images, told apart under noise within 20 steps of the optimiser."""
        labels = torch.arange(32) % 2
        images = (0.15 + 0.7 * labels.float()).view(-1, 1, 1, 1) + 0.1 * torch.rand(32, 1, 4, 4, generator=generator())
        if "classifier" in options:
            options = {**options, "classifier": brightness()}
        objective, model, noise, steps = build_objective(name, 0.25, **options), network(classes=2), generator(1), 0
        while steps < 20:
            for part in map(list, objective.split(len(images))):
                loss = objective.loss(model, images[part], labels[part], Step(noise, steps / 5))
                found = gradients(loss.total, model)
                with torch.no_grad():
                    for parameter, gradient in zip(model.parameters(), found, strict=True):
                        parameter -= 0.3 * gradient
                steps += 1
        right = model.eval()(images + 0.25 * torch.randn(images.shape, generator=noise)).argmax(1) == labels
        assert right.float().mean() > 0.9

    @pytest.mark.parametrize(("name", "options"), ROWS)
    def test_under_bfloat16_autocast(self, name, options):
        model = network()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = loss_of(build_objective(name, 0.5, **options), model).total
        assert total.isfinite()
        assert all(g is not None and g.isfinite().all() for g in gradients(total, model))

    @pytest.mark.parametrize("name", FORWARDS)
    def test_passes_are_those_of_the_method_and_keep_no_graph(self, name):
        """All but one in eval mode with frozen weights; what a backward pass needs is gone before the next forward."""
        model, passes, alive = network(), [], weakref.WeakSet()

        class Saved:
            def __init__(self, tensor: Tensor):
                self.tensor = tensor
                alive.add(self)

        def look(*_):
            passes.append((model.training, any(p.requires_grad for p in model.parameters()), len(alive)))

        model.register_forward_pre_hook(look)
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            total = loss_of(build_objective(name, 0.5, **CASES[name][0]), model).total
            assert len(alive) > 0
            total.backward()
        assert passes == [(False, False, 0)] * (FORWARDS[name] - 1) + [(True, True, 0)]

    @pytest.mark.parametrize("name", CASES)
    def test_in_a_network_of_several_processes(self, name):
        """Processes meet in the wrapped network's forward pass: once a step, however many steps an attack takes."""

        class Wrapped(nn.parallel.DistributedDataParallel):
            def __init__(self, module: nn.Module):
                nn.Module.__init__(self)
                self.module, self.meetings = module, 0

            def forward(self, images: Tensor) -> Tensor:
                self.meetings += 1
                return self.module(images)

        wrapped, objective = Wrapped(network()), build_objective(name, 0.5, **CASES[name][0])
        assert torch.equal(loss_of(objective, wrapped).total, loss_of(objective, network()).total)
        assert wrapped.meetings == 1
        assert all(m.training for m in wrapped.modules())

    @pytest.mark.parametrize(("name", "option"), [
        (name, field.name) for name, kind in OBJECTIVES.items() for field in dataclasses.fields(kind)
        if field.name != "sigma"
    ])
    def test_every_option_is_checked(self, name, option):
        with pytest.raises(InputError, match=option if option != "attack" else "smoothadv"):
            build_objective(name, 0.5, **{option: "nonsense"})

    @pytest.mark.parametrize(("name", "options", "words"), [
        ("adre", {"lam": 1.0}, "lam"), ("adre", {"lam": -0.1}, "lam"), ("adre", {"k": 0}, "k must"),
        ("adre", {"cap": 0}, "cap"), ("adre", {"eps": -1}, "eps"), ("adre", {"label_smoothing": 1}, "label_smoothing"),
        ("smoothadv", {"m": 0}, "m must"), ("smoothadv", {"eps": 0}, "eps"), ("smoothadv", {"steps": 0}, "steps"),
        ("smoothadv", {"attack": "stein"}, "attack"), ("smoothadv", {"warmup": -1}, "warmup"),
        ("smoothadv", {"lambda": 0.1}, "no option 'lambda'"), ("trades", {"eps": 0.0}, "eps"),
        ("trades", {"beta": math.nan}, "beta"), ("adversarial", {"eps": math.inf}, "eps"),
        ("macer", {"gamma": 0}, "gamma"), ("macer", {"lam": -1}, "lam"), ("consistency", {"m": 2.5}, "m must"),
        ("consistency", {"eta": -0.5}, "eta"), ("stability", {"lam": None}, "lam"),
        ("adre", {"lam": -0.1, "cap": None}, "lam"), ("adre", {"lambda": 0.1}, 'did you mean "lam"'),
        ("smoothmix", {"eta": -1}, "eta"), ("smoothmix", {"step_size": 0}, "step_size"),
        ("smoothmix", {"m": 0}, "m must"), ("cat-rs", {}, "needs a classifier.*--classifier DIR"),
        ("cat-rs", {"lam": -1, "classifier": JUDGE}, "lam"), ("cat-rs", {"m": 0, "classifier": JUDGE}, "m must"),
        ("cat-rs", {"votes": 0, "classifier": JUDGE}, "votes"), ("cat-rs", {"eps": 0, "classifier": JUDGE}, "eps"),
    ])
    def test_values_out_of_range(self, name, options, words):
        with pytest.raises(InputError, match=words):
            build_objective(name, 0.5, **options)

    def test_without_a_noise_level(self):
        for name, kind in OBJECTIVES.items():
            if any(field.name == "sigma" for field in dataclasses.fields(kind)):
                with pytest.raises(InputError, match="sigma"):
                    build_objective(name)
            else:
                build_objective(name)


@pytest.mark.parametrize(("name", "options"), [("stability", {"lam": 2.0}), ("trades", {"beta": 3.0, "eps": 0.2})])
def test_the_clean_answer_that_teaches_is_taught_too(name, options):
    """The slope's derivative, both terms written out: a teacher held constant would give another one."""

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope, self.seen = nn.Parameter(torch.tensor(3.0)), []

        def forward(self, images: Tensor) -> Tensor:
            self.seen.append(images.detach())
            return logistic(self.slope)(images)

    model = Slope()
    total = loss_of(build_objective(name, 0.5, **options), model, PIXEL, PIXEL_LABELS).total
    slope = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    p, q = torch.sigmoid(slope * model.seen[-1].double().flatten() - 1).chunk(2)
    clean = -torch.where(PIXEL_LABELS == 0, p, 1 - p).log()
    second = -(p * q.log() + (1 - p) * (1 - q).log())
    if name == "trades":
        second = second + p * p.log() + (1 - p) * (1 - p).log()
    expected = (clean + next(iter(options.values())) * second).mean()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found, exact = gradients(total, model)[0], torch.autograd.grad(expected, slope)[0]
    assert float(found) == pytest.approx(float(exact), rel=1e-4)


def test_everything_wrong_with_the_options_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        build_objective("smoothadv", 0.5, m=0, eps=-1, warmup=2, lamb=3)
    problems = caught.value.problems
    assert len(problems) == 3
    for problem, word in zip(problems, ("lamb", "m must", "eps must"), strict=True):
        assert word in problem
    with pytest.raises(InputError, match=r"m must be at least 1, got 0") as caught_one:
        build_objective("smoothadv", 0.5, m=0, warmup=2)
    assert not isinstance(caught_one.value, ConfigError)
