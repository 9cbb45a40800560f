"""The opened voters of a smoothed classifier, kept from call to call while its model stays what it is.

Opening costs 26 rows of trial and, for long runs, the choice of an engine. A kept voter must never answer for a model
that has changed, and no quick look at a network shows every change: one through `tensor.data`, through a fused
optimiser or through memory that NumPy shares moves no version counter. So there are two kinds of voters:

- One that runs the model itself (engine plain, in pixels) follows every change by itself. Calls of fewer than 20,000
  samples take such a voter if the engine is left to `auto`. Only what its trial found, that batches change no answer,
  could become wrong. So the model is tried again when a layer, weight or buffer has visibly changed. Two rows are
  judged again when an attribute has, and every 10,000 samples; other answers than before lead to another trial, too.
- One that holds a copy (other engines, smaller spaces, bfloat16), or counts on an unusual conduct, is compared with the
  model at each call: all weights and attributes, by their hashes, and the answers to two rows.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.noise import Noise
from smoothcert.smoothing.content import attributes_hash, attributes_of, state_parts
from smoothcert.smoothing.contract import Conduct, few_answers, try_rows
from smoothcert.smoothing.precision import NARROW, reduce_precision
from smoothcert.smoothing.protocols import Denoiser, is_random
from smoothcert.smoothing.sampling import SHORT, OpenVoter, Sampling, behind, open_voter

_NO_ATTRIBUTES = frozenset(vars(nn.Module()))

_LOOK_AGAIN = 10_000  # samples, after which a kept voter is tried again


@dataclass(eq=False)
class _Kept:
    """A voter, the arguments it was opened for, and what its model was then."""

    arguments: tuple[Any, ...]
    held: tuple[Any, ...]
    """The objects whose ids are among the arguments."""
    opened: OpenVoter
    lives: bool
    answers: bytes
    content: bytes
    layers: list[Any]
    attributes: list[Any]
    left: int = _LOOK_AGAIN
    """Samples until two rows are judged again."""


class KeptVoters:
    """The voters of one smoothed classifier, at most one for short calls and one for long ones.

    Args:
        how: its batch size and samples are those of each call.
        bounds: range of the inputs.
    """

    def __init__(self, noise: Noise, num_classes: int, seed: int, how: Sampling, bounds: tuple[float, float] | None):
        self._noise, self._num_classes, self._seed, self._how, self._bounds = noise, num_classes, seed, how, bounds
        self._kept: dict[bool, _Kept] = {}

    def of(
        self, base: Any, model: Any, denoiser: Denoiser | None, shape: tuple[int, ...], batch_size: int | None,
        samples: int, device: torch.device,
    ) -> OpenVoter:
        """Return the voter for a call.

        Args:
            base: the base classifier as its owner may change it.
            model: the same as one that takes any number of images (see `adapted`).
            samples: the most that the call may take.
        Raises:
            ModelError: as `try_rows` and `open_voter`.
        """
        short = self._how.engine == "auto" and samples < SHORT
        held = (base, model, denoiser)
        arguments = (*map(id, held), shape, batch_size, device)
        kept = self._kept.get(short)
        random = is_random(denoiser) or is_random(model)
        run = behind(denoiser, self._noise.sigma, reduce_precision(model, "float32"))
        layers, attributes = _look_at(base, denoiser)

        def answers() -> bytes:
            return _bytes(few_answers(run, shape, self._num_classes, device, random, self._noise.sigma, self._bounds))

        if kept and kept.arguments == arguments and self._is_current(kept, layers, attributes, samples, answers):
            return kept.opened
        conduct = try_rows(run, shape, self._num_classes, device, model=model, random=random, sigma=self._noise.sigma,
                           bounds=self._bounds)
        how = replace(self._how, batch_size=batch_size, device=device, samples=samples)
        opened = open_voter(model, self._noise, self._num_classes, shape, self._seed, denoiser, how, conduct,
                            self._bounds)
        usual = replace(conduct, overwrites=False) == Conduct() and opened.dtype == torch.float32
        lives = (opened.engine, opened.space) == ("plain", "pixels") and how.precision not in NARROW and usual
        self._kept[short] = _Kept(arguments, held, opened, lives, _bytes(conduct.answers),
                                  b"" if lives else _content(base), layers, attributes)
        return opened

    def _is_current(
        self, kept: _Kept, layers: list[Any], attributes: list[Any], samples: int, answers: Callable[[], bytes]
    ) -> bool:
        """Tell whether a voter still stands for its model; see the top of this module."""
        if not kept.lives:
            return kept.content == _content(kept.held[0]) and kept.answers == answers()
        if kept.layers != layers:
            return False
        if kept.attributes != attributes or samples > kept.left:
            if kept.answers != answers():
                return False
            kept.attributes, kept.left = attributes, _LOOK_AGAIN
        kept.left -= samples
        return True


def _look_at(*networks: Any) -> tuple[list[Any], list[Any]]:
    """Return what shows at a glance that networks have changed.

    Returns:
        Their layers, weights and buffers, which objects these are and how often each tensor was written; and which
        objects their attributes and hooks are. What is changed within an attribute does not show.
    """
    layers, attributes = list[Any](), list[Any]()
    for module in (part for network in networks if isinstance(network, nn.Module) for part in network.modules()):
        layers += id(module), type(module)
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                layers += id(tensor), 0 if tensor is None or tensor.is_inference() else tensor._version
        for name, value in vars(module).items():
            if name not in _NO_ATTRIBUTES:
                attributes += name, id(value)
        attributes += map(id, (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))
    return layers, attributes


def _content(base: Any) -> bytes:
    """Return a hash of a network's state dict and attributes; nothing for what is no network."""
    if not isinstance(base, nn.Module):
        return b""
    digest = hashlib.sha256()
    for part in state_parts(base.state_dict().items()):
        digest.update(part)
    return digest.digest() + attributes_hash(attributes_of(base)).encode()


def _bytes(answers: Tensor) -> bytes:
    return answers.double().cpu().numpy().tobytes()
