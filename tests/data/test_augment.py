"""Random crops and flips: their distributions, their determinism, and that no global generator is touched."""

import numpy as np
import pytest
import torch
from scipy import stats

from smoothcert.data.augment import augment
from smoothcert.errors import InputError, UnknownNameError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def coordinates(batch, side=6):
    """Every image holds 1 + row * side + column, so that a crop shows where it was taken; 0 is padding."""
    return (1.0 + torch.arange(side * side, dtype=torch.float32)).reshape(1, 1, side, side).repeat(batch, 1, 1, 1)


def test_none_returns_the_images_and_draws_nothing():
    images, rng = torch.rand(3, 1, 4, 4), generator()
    before = rng.get_state()
    assert torch.equal(augment(images, "none", rng), images)
    assert torch.equal(rng.get_state(), before)


def test_flip_mirrors_half_of_the_images():
    images = coordinates(4000)
    flipped = augment(images, "flip", generator(1))
    is_flipped = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(flipped[~is_flipped], images[~is_flipped])
    assert stats.binomtest(int(is_flipped.sum()), 4000, 0.5).pvalue > 0.001


def test_crop_offsets_are_uniform_over_all_81():
    images = coordinates(8100)
    cropped = augment(images, "crop", generator(2))
    padded = torch.nn.functional.pad(images[:1], (4, 4, 4, 4))
    counts = [int((cropped == padded[:, :, top:top + 6, left:left + 6]).flatten(1).all(1).sum())
              for top in range(9) for left in range(9)]
    assert sum(counts) == 8100
    assert stats.chisquare(counts).pvalue > 0.001


def test_crop_takes_one_window_for_all_channels():
    images = coordinates(50).repeat(1, 3, 1, 1)
    cropped = augment(images, "crop", generator(3))
    assert torch.equal(cropped[:, 0], cropped[:, 2])


def test_crop_without_padding_changes_nothing():
    assert torch.equal(augment(coordinates(5), "crop", generator(), padding=0), coordinates(5))


def test_crop_and_flip_are_the_crop_then_the_flip():
    images = torch.rand(20, 3, 8, 8, generator=generator(9))
    rng = generator(4)
    expected = augment(augment(images, "crop", rng), "flip", rng)
    assert torch.equal(augment(images, "crop-flip", generator(4)), expected)


def test_resized_windows_have_imagenet_areas_and_ratios():
    """On a ramp the ends of the enlarged window say how large it was. Drawn by hand: an area uniform on [.08, 1] and a
    ratio log-uniform on [3/4, 4/3], until the window fits."""
    side, ramp = 64, torch.linspace(0, 1, 64)
    images = torch.stack([ramp[:, None].expand(side, side), ramp[None, :].expand(side, side)]).repeat(600, 1, 1, 1)
    moved = augment(images, "resized-crop", generator(5))
    height = (moved[:, 0, -1, 0] - moved[:, 0, 0, 0]) * side + 0.5
    width = (moved[:, 1, 0, -1] - moved[:, 1, 0, 0]) * side + 0.5
    random = np.random.default_rng(0)
    area, ratio = random.uniform(0.08, 1, 20_000), np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3), 20_000))
    fits = (area * ratio <= 1) & (area / ratio <= 1)
    assert stats.ks_2samp((height * width / side**2).numpy(), area[fits]).pvalue > 0.001
    assert stats.ks_2samp((width / height).numpy(), ratio[fits]).statistic < 0.1
    assert (moved >= 0).all()
    assert (moved <= 1).all()


def test_a_window_that_never_fits_is_cut_to_fit():
    assert augment(torch.rand(20, 1, 4, 40), "resized-crop", generator(1)).shape == (20, 1, 4, 40)


@pytest.mark.parametrize("kind", ["crop", "flip", "crop-flip", "resized-crop", "resized-crop-flip"])
def test_the_generator_alone_decides(kind):
    images = torch.rand(64, 3, 8, 8, generator=generator(9))
    before = images.clone()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = augment(images, kind, generator(6))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert torch.equal(augment(images, kind, generator(6)), first)
    assert not torch.equal(augment(images, kind, generator(8)), first)
    assert torch.equal(images, before)
    assert first.shape == images.shape
    assert first.dtype == images.dtype


def test_wrong_requests_are_refused():
    with pytest.raises(UnknownNameError, match='did you mean "flip"'):
        augment(coordinates(1), "flipp", generator())
    with pytest.raises(InputError, match=r"\(B, C, H, W\)"):
        augment(coordinates(1)[0], "flip", generator())
    with pytest.raises(InputError, match="padding"):
        augment(coordinates(1), "crop", generator(), padding=-1)
