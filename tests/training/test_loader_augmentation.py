from dataclasses import replace

import numpy as np
import pytest
import torch

from vadis.training.loader import Augmentation, crop_window, draw_augmentation, shift_colours
from vadis.training.recipes import RECIPES, Recipe

MANY = [draw_augmentation(0, epoch, index) for epoch in range(10) for index in range(100)]


def draw(**values):
    return Augmentation(**{**dict.fromkeys(("start", "top", "left"), 0.5), "mirror": False, **NO_SHIFT, **values})


START_OF_THE_FIRST = 0.416383460651386
NO_SHIFT = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def test_a_draw_follows_from_seed_epoch_and_index_alone():
    assert draw_augmentation(1, 2, 3) == draw_augmentation(1, 2, 3)
    assert (
        len({draw_augmentation(*key) for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 23, 4), (12, 3, 4)]})
        == 6
    )


def test_a_draw_is_the_same_everywhere_and_for_ever():
    """Or runs could not be repeated on another machine."""
    assert draw_augmentation(0, 0, 0).start == pytest.approx(START_OF_THE_FIRST, abs=1e-15)


@pytest.mark.parametrize("name", ["start", "top", "left"])
def test_shares_are_spread_evenly(name):
    counts, _ = np.histogram([getattr(each, name) for each in MANY], bins=10, range=(0, 1))
    assert counts.sum() == len(MANY)
    assert counts.min() > 60


def test_half_are_mirrored():
    assert 0.45 < np.mean([each.mirror for each in MANY]) < 0.55


def test_every_crop_there_is_comes_up_and_no_other():
    tops = {crop_window((341, 256), each)[0].start for each in MANY}
    lefts = {crop_window((341, 256), each)[1].start for each in MANY}
    assert tops == set(range(33))
    assert lefts == set(range(118))


@pytest.mark.parametrize(("size", "top", "left"), [((341, 256), 16, 58), ((256, 455), 115, 16), ((256, 256), 16, 16)])
def test_the_centre(size, top, left):
    assert crop_window(size, None) == (slice(top, top + 224), slice(left, left + 224))


def clip(seed=0):
    return torch.rand((3, 4, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def jitter(**shifts: float) -> Recipe:
    return replace(RECIPES["ucf101"], **shifts)


def test_no_shift_changes_nothing():
    assert torch.allclose(
        shift_colours(clip(), jitter(brightness=0.1, contrast=0.2, saturation=0.2), draw()), clip(), atol=1e-6
    )


def test_brightness_is_a_share_of_the_range():
    x = clip() / 2
    y = shift_colours(x.clone(), jitter(brightness=0.1), draw(brightness=-1.0))
    assert torch.allclose(y, x - 0.2, atol=1e-6)


def test_no_saturation_is_grey():
    y = shift_colours(clip(), jitter(saturation=0.9999999), draw(saturation=-1.0))
    assert torch.allclose(y[0], y[1], atol=1e-6)
    assert torch.allclose(y[0], y[2], atol=1e-6)
    assert torch.allclose(y[0], torch.einsum("c,cthw->thw", torch.tensor([0.299, 0.587, 0.114]), clip()), atol=1e-6)


def test_contrast_moves_away_from_the_mean():
    x = clip() / 4
    y = shift_colours(x.clone(), jitter(contrast=0.5), draw(contrast=1.0))
    assert y.std() / x.std() == pytest.approx(1.5, rel=1e-3)
    assert y.mean() == pytest.approx(float(x.mean()), abs=0.01)


def test_the_result_stays_within_the_range():
    for seed, each in enumerate(MANY[:20]):
        y = shift_colours(clip(seed), jitter(brightness=0.999, contrast=0.999, saturation=0.999), each)
        assert y.abs().max() <= 1
