"""Smaller spaces: where a network lets Gaussian noise be drawn in fewer dimensions than pixels, with the same votes.

If what a network computes first is affine, u(y) = W y + b with W (w, d), then for y = x + sigma Z, Z ~ N(0, I_d),

    u(y) ~ N(u(x), sigma^2 W W^T),   so   u(x) + sigma L eta,  eta ~ N(0, I_r),  L L^T = W W^T

has the law of u(y), and what follows u takes it from there. W^T = Q R gives L = R^T, for a W of any rank and without
squaring its condition number. This is the law of plain Gaussian noise on pixels: not of noise rounded to a grid, nor
of noise behind a denoiser.

Four spaces; where there are several, the one with the fewest dimensions is taken:
  - `logits`: the whole network is affine. Votes depend on differences of logits alone, so the logits' mean is
    subtracted first, which leaves rank K - 1 at most.
  - `binary`: the same with K = 2, where P(class 0) = Phi((u_0 - u_1)(x) / (sigma ||w_0 - w_1||)) is known exactly.
  - `linear`: the output of an `nn.Linear` that is narrower than the image and sees it through affine layers only.
  - `patches`: the output of a convolution over patches that do not overlap, narrower than a patch. The patches'
    values are independent and share one L.
"""

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor, fx, nn

from smoothcert.noise import least_float32
from smoothcert.smoothing.protocols import device_of
from smoothcert.smoothing.tracing import (
    affine_nodes,
    has_global_hooks,
    is_altered,
    is_patchwise,
    part_after,
    part_before,
    settle_in_place,
    trace,
)

_MOST_ENTRIES = 5 * 10**7  # of W: 0.4 GB
_MOST_WORK = 10**11  # w^2 d, of probing and factoring: seconds
_PROBE_VALUES = 2**22  # float64 values of a batch of probes
_ROUNDING = 1e-13  # share of the largest entry, of L or a pixel's slopes, below which a difference is rounding error
_DEPENDENT = 1e-11  # the same share, below which what is left of a row of W lies in the span of those above it
_TOLERANCE = 1e-5  # share of the largest logit by which the network in two parts may differ from the whole, in float32


@dataclass(frozen=True, eq=False)
class Space:
    """A space in which noisy samples are drawn in place of noisy images.

    Attributes:
        name: "logits", "binary", "linear" or "patches".
        shape: of one sample: (K,), (w,), or (w, H', W').
        dimension: standard normals a sample takes.
        head: what follows, (N, *shape) -> logits (N, K), in eval mode on the model's device and independent of the
            model; None where samples are logits, less their mean.
        factor: L, float32 (w, r), lower triangular; of one patch where there are patches.
        weight, bias: W (w, d), or (w, C kh kw) of one patch, and b `shape`; float64.
        patch: (kh, kw) where there are patches.
    """

    name: str
    shape: tuple[int, ...]
    dimension: int
    head: nn.Module | None = field(repr=False)
    factor: np.ndarray = field(repr=False)
    weight: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    patch: tuple[int, int] | None = None
    _on_device: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    def centre(self, image: np.ndarray) -> np.ndarray:
        """Return u(x) of an input: float64 `shape`, computed in float64. Rows take it rounded to float32.

        Classes with equal rows of W and b get equal logits to the last bit, so that ties are ties here too.
        """
        pixels = np.asarray(image, dtype=np.float64)
        if self.head is None:
            return np.einsum("ij,j->i", self.weight, pixels.ravel())[self.first] + self.bias
        inputs = pixels.ravel() if self.patch is None else _patches(pixels, self.patch)
        return (self.weight @ inputs).reshape(self.shape) + self.bias

    def place(self, normals: Any, centre: Any, sigma: float) -> Any:
        """Return new rows u(x) + sigma L eta, (m, prod(shape)) float32, of standard normals (m, dimension), float32.

        The last bits of a row may depend on m, as those of any float32 matrix product do.

        Args:
            normals: a NumPy array, or a tensor on any device that has float64 (there L eta is computed in it, which
                no setting of the device's matrix products can coarsen).
            centre: float32, of the same kind and device: one for all rows (prod(shape),), or one each.
        """
        on_host = isinstance(normals, np.ndarray)
        factor, eta = self.factor, normals
        if not on_host:
            if normals.device not in self._on_device:
                self._on_device[normals.device] = torch.from_numpy(self.factor).to(normals.device, torch.float64)
            factor, eta = self._on_device[normals.device], normals.double()
        if self.patch is None:
            rows = eta @ factor.T
        else:
            rows = (factor @ eta.reshape(len(eta), factor.shape[1], -1)).reshape(len(eta), -1)
        rows *= least_float32(sigma) if on_host else sigma
        rows += centre
        return rows if on_host else rows.float()

    def probabilities(self, image: np.ndarray, sigma: float) -> tuple[float, float]:
        """Return P(class 0) and P(class 1) of a `binary` space, each to full relative precision however small.

        Where w_0 = w_1 every sample gets the same vote, and a tie goes to class 0.
        """
        first, second = self.centre(image)
        spread = sigma * float(np.linalg.norm(self.weight[0] - self.weight[1]))
        if spread == 0:
            return (1.0, 0.0) if first >= second else (0.0, 1.0)
        z = (first - second) / spread
        return float(special.ndtr(z)), float(special.ndtr(-z))

    @cached_property
    def first(self) -> np.ndarray:
        """For each row of W the first one that equals it, int64 (w,).

        A product may sum equal rows in different orders, each processor in its own. Taken from the first of them, the
        products of equal rows are equal.
        """
        return first_equal(self.weight)


def find_space(model: Any, shape: tuple[int, ...], num_classes: int) -> Space | None:
    """Return the smallest space that a model's noise can be drawn in exactly; None for pixels.

    Only torch modules that torch.fx can trace are looked into. What is affine is proved on the traced graph; that
    the parts found compute what the model computes is checked on random images. The model is never changed.

    Args:
        model: base classifier, (N, *shape) -> (N, K), taken as it is in eval mode.
        shape: of one input, (C, H, W) of images.
        num_classes: K.
    """
    if not isinstance(model, nn.Module):
        return None
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return _search(model, shape, num_classes)
    except Exception:  # users' networks may fail in any way at being copied, traced or probed; pixels are always right
        return None


def _search(model: nn.Module, shape: tuple[int, ...], num_classes: int) -> Space | None:
    network = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    if has_global_hooks() or any(map(is_altered, network.modules())):
        return None
    with torch.no_grad():  # as samples are judged: a forward may ask
        graph = trace(network, shape)
    if not settle_in_place(graph, network):
        return None
    affine = affine_nodes(graph, network)
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    cuts = [] if result in affine else _cuts(network, graph, affine, shape)
    if not (result in affine or cuts):
        return None
    images = 0.5 + torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images.clone())
    for layer in network.modules():
        if getattr(layer, "inplace", False):
            vars(layer).update(inplace=False)  # the head must leave its samples as they are
    if result in affine:
        space = _logit_space(network, graph, result, affine, shape, num_classes)
    else:
        space = _latent_space(network, graph, cuts, affine, shape)
    if space is None or not _agrees(space, images, expected):
        return None
    if space.head is not None:
        space.head.eval().to(device_of(model))
    return space


def _cuts(
    network: nn.Module, graph: fx.Graph, affine: dict[fx.Node, bool], shape: tuple[int, ...]
) -> list[tuple[int, fx.Node]]:
    """Return the layers whose output takes fewer normals than the image has pixels, and how many, the fewest first."""
    pixels, cuts = int(np.prod(shape)), []
    for node in graph.nodes:
        if node not in affine or node.op != "call_module":
            continue
        layer = network.get_submodule(node.target)
        if isinstance(layer, nn.Linear) and layer.out_features < pixels and _affordable(layer.out_features, pixels):
            cuts.append((layer.out_features, node))
        elif isinstance(layer, nn.Conv2d) and is_patchwise(layer) and affine[node.args[0]]:
            (channels, height, width), (high, wide) = shape, layer.kernel_size
            if layer.out_channels < channels * high * wide:
                cuts.append((layer.out_channels * (height // high) * (width // wide), node))
    return sorted(cuts, key=lambda cut: cut[0])


def _affordable(width: int, pixels: int) -> bool:
    return width * pixels <= _MOST_ENTRIES and width**2 * pixels <= _MOST_WORK


def _logit_space(
    network: nn.Module, graph: fx.Graph, result: fx.Node, affine: dict[fx.Node, bool], shape: tuple[int, ...],
    num_classes: int,
) -> Space | None:
    """Return the space of a network that is affine as a whole: `logits` or `binary`."""
    if not _affordable(num_classes, int(np.prod(shape))):
        return None
    weight, bias = _affine_map(part_before(network, graph, result), shape, num_classes)
    rows, offsets = _last_map(network, graph, affine, shape, num_classes) or (weight, bias)
    weight, bias = weight[first_equal(rows)], bias[first_equal(np.column_stack([rows, offsets]))]  # once for equal ones
    weight, bias = weight - weight.mean(axis=0), bias - bias.mean()
    factor = factor_of(weight, num_classes - 1)  # the rows of W sum to zero
    name = "binary" if num_classes == 2 else "logits"
    return Space(name, (num_classes,), factor.shape[1], None, factor, weight, bias)


def _last_map(
    network: nn.Module, graph: fx.Graph, affine: dict[fx.Node, bool], shape: tuple[int, ...], num_classes: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return V (K, h) and c (K,) of logits V z + c, where z is the input of the last layer with weights.

    Each entry comes from one product, which every processor rounds alike, so equal classes have equal rows. None where
    the network cannot be cut before that layer.
    """
    weighted = [node for node in graph.nodes if node in affine and node.op == "call_module"
                and isinstance(network.get_submodule(node.target), nn.Linear | nn.Conv2d)]
    if not weighted:
        return None
    inputs = weighted[-1].all_input_nodes[0]
    after = part_after(network, graph, inputs, affine)
    if after is None:
        return None
    sizes = part_before(network, graph, inputs)(torch.zeros(1, *shape)).shape[1:]
    return _affine_map(after, sizes, num_classes) if _affordable(num_classes, int(np.prod(sizes))) else None


def _latent_space(
    network: nn.Module, graph: fx.Graph, cuts: list[tuple[int, fx.Node]], affine: dict[fx.Node, bool],
    shape: tuple[int, ...],
) -> Space | None:
    """Return the space `linear` or `patches` at the first of the cuts that all ways through the network pass."""
    for _, node in cuts:
        head = part_after(network, graph, node, affine)
        if head is not None:
            layer, before = network.get_submodule(str(node.target)), part_before(network, graph, node)
            if isinstance(layer, nn.Conv2d):
                return _patch_space(layer, before, part_before(network, graph, node.all_input_nodes[0]), head, shape)
            if isinstance(layer, nn.Linear):
                weight, bias = _affine_map(before, shape, layer.out_features)
                factor = factor_of(weight, layer.out_features)
                return Space("linear", (layer.out_features,), factor.shape[1], head, factor, weight, bias)
    return None


def _patch_space(
    layer: nn.Conv2d, before: fx.GraphModule, pixels: fx.GraphModule, head: nn.Module, shape: tuple[int, ...]
) -> Space | None:
    """Return the space `patches` of a layer; `before` is the network up to its output, `pixels` up to its input."""
    high, wide = layer.kernel_size
    grid = (shape[1] // high, shape[2] // wide)
    # S (channels, C) of v -> S v + t, which maps every pixel before the layer; it must be the same for all.
    probes = torch.eye(layer.in_channels, dtype=torch.float64)[:, :, None, None].expand(-1, -1, *shape[1:])
    slopes = _slopes(copy.deepcopy(pixels).double(), probes, shape).numpy()
    scale = slopes[:, :, 0, 0]
    alike = np.allclose(slopes, slopes[:, :, :1, :1], rtol=_ROUNDING, atol=0)
    bias = copy.deepcopy(before).double().forward(torch.zeros(1, *shape, dtype=torch.float64))[0].numpy()
    if not alike or bias.shape != (layer.out_channels, *grid):
        return None
    weight = np.einsum("oihw,ic->ochw", layer.weight.double().numpy(), scale).reshape(layer.out_channels, -1)
    factor = factor_of(weight, layer.out_channels)
    return Space("patches", bias.shape, factor.shape[1] * grid[0] * grid[1], head, factor, weight, bias, (high, wide))


def _affine_map(part: fx.GraphModule, shape: tuple[int, ...], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return W (width, d), from gradients, and b (width,) of an affine part (N, *shape) -> (N, width), in float64."""
    part = copy.deepcopy(part).double()
    rows, pixels = [], int(np.prod(shape))
    for probes in torch.eye(width, dtype=torch.float64).split(max(1, _PROBE_VALUES // pixels)):
        rows.append(_slopes(part, probes, shape).reshape(len(probes), pixels))
    bias = part.forward(torch.zeros(1, *shape, dtype=torch.float64)).reshape(width)
    return torch.cat(rows).numpy(), bias.numpy()


def _slopes(part: fx.GraphModule, probes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the gradient of each probe's product with the part's value, at zero: (len(probes), *shape)."""
    images = torch.zeros(len(probes), *shape, dtype=torch.float64, requires_grad=True)
    values = part.forward(images)  # called itself, a part prints what it raises
    if values.shape != probes.shape:
        raise ValueError(f"a part gave values of shape {tuple(values.shape)} where {tuple(probes.shape)} were expected")
    return torch.autograd.grad((values * probes).sum(), images)[0]


def _patches(image: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """Return an image (C, H, W) as (C kh kw, patches), a patch a column, without the pixels beyond the last whole one.
    """
    (channels, height, width), (high, wide) = image.shape, patch
    down, across = height // high, width // wide
    tiles = image[:, : down * high, : across * wide].reshape(channels, down, high, across, wide)
    return tiles.transpose(0, 2, 4, 1, 3).reshape(channels * high * wide, down * across)


def _agrees(space: Space, images: Tensor, expected: Tensor) -> bool:
    """Tell whether the network in two parts gives the logits of the whole, on noiseless samples."""
    samples = torch.from_numpy(np.stack([space.centre(image) for image in images.numpy()])).float()
    if space.head is None:
        found, wanted = samples, expected - expected.mean(dim=1, keepdim=True)
    else:
        found, wanted = space.head.forward(samples), expected
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= _TOLERANCE * expected.abs().max())


def factor_of(weight: np.ndarray, rank: int) -> np.ndarray:
    """Return L float32 (w, min(rank, d)), lower triangular with a diagonal >= 0, L L^T = W W^T.

    It is the same on every processor but for its last bits.

    Every row of W beyond the first `rank` must depend on those above it: the columns of L that are dropped are zero.
    Equal rows of W give equal rows of L.
    """
    upper = np.asarray(np.linalg.qr(weight.T, mode="r"))
    if np.abs(np.diagonal(upper)).min(initial=np.inf) <= _DEPENDENT * np.abs(upper).max(initial=0.0):
        upper = _echelon(upper)
    upper = upper[:rank]
    signs = np.where(np.diagonal(upper) < 0, -1.0, 1.0)  # makes L unique where W has full rank
    lower = signs * upper.T
    lower[np.abs(lower) <= _ROUNDING * np.abs(lower).max(initial=0.0)] = 0.0
    return lower[first_equal(weight)].astype(np.float32, order="C")


def _echelon(upper: np.ndarray) -> np.ndarray:
    """Return R' with R'^T R' = R^T R in row echelon form, where each row's first entry is positive.

    It is unique, as R is where it has full rank.

    Where a column of R depends on those before it, what is left of it is rounding error, another on each processor.
    Householder's reflections would turn that into a direction, and all later columns with it; here it is set to zero.
    """
    upper, least, row = upper.copy(), _DEPENDENT * np.abs(upper).max(initial=0.0), 0
    for column in range(upper.shape[1]):
        mirror = upper[row:, column].copy()
        length = np.linalg.norm(mirror)
        if length <= least:
            upper[row:, column] = 0.0
            continue
        mirror[0] += np.copysign(length, mirror[0])
        mirror /= np.linalg.norm(mirror)
        upper[row:, column:] -= 2 * np.outer(mirror, mirror @ upper[row:, column:])
        upper[row + 1 :, column] = 0.0
        upper[row] *= np.sign(upper[row, column])
        row += 1
    return upper


def first_equal(rows: np.ndarray) -> np.ndarray:
    """Return for each row the index of the first one that equals it, int64."""
    found: dict[bytes, int] = {}
    return np.array([found.setdefault((row + 0.0).tobytes(), k) for k, row in enumerate(rows)], dtype=np.int64)
