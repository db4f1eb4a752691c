"""Random distortions of images: what each amount does, and what must stay as it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unroll.data.augment import Augmentation, _bumps, augment, warp
from unroll.errors import InputError

EVERYTHING = Augmentation(rotation=15, scaling=0.2, shear=10, translation=2, elastic=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 3, rows: int = 9, columns: int = 12) -> Tensor:
    return torch.rand(count, rows, columns, generator=generator(7), dtype=torch.float64)


def affine(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).expand(3, 2, 3)


def blob(x: float, y: float, size: int = 41) -> Tensor:
    """One image (1, size, size) with a smooth spot at (x, y) pixels from its centre."""
    along = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.exp(-((along - x) ** 2 + (along[:, None] - y) ** 2) / 8)[None]


def centroid(images: Tensor) -> Tensor:
    """(B, 2): centre of mass of each image, x and y in pixels from its centre."""
    rows, columns = images.shape[1:]
    x = torch.arange(columns, dtype=images.dtype) - (columns - 1) / 2
    y = torch.arange(rows, dtype=images.dtype) - (rows - 1) / 2
    mass = images.sum((1, 2))
    return torch.stack(((images.sum(1) @ x) / mass, (images.sum(2) @ y) / mass), 1)


def test_without_any_amount_the_images_come_back_untouched_and_nothing_is_drawn() -> None:
    images, source = noise(), generator()
    state = source.get_state()
    assert not Augmentation().any()
    assert torch.equal(augment(images, source, Augmentation()), images)
    assert torch.equal(source.get_state(), state)


def test_the_identity_map_changes_nothing_but_rounding() -> None:
    images = noise()
    torch.testing.assert_close(warp(images, affine([1, 0, 0], [0, 1, 0])), images, rtol=0, atol=1e-12)


def test_a_shift_by_whole_pixels_is_a_roll_with_zeros_from_outside() -> None:
    images = noise()
    moved = warp(images, affine([1, 0, -2], [0, 1, 3]))  # 2 pixels to the right, 3 up
    expected = images.roll((-3, 2), (1, 2))
    expected[:, -3:] = 0
    expected[:, :, :2] = 0
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


def test_a_shift_by_half_a_pixel_is_the_mean_of_two_neighbours() -> None:
    images = noise()
    moved = warp(images, affine([1, 0, 0.5], [0, 1, 0]))
    torch.testing.assert_close(moved[:, :, :-1], (images[:, :, :-1] + images[:, :, 1:]) / 2)
    torch.testing.assert_close(moved[:, :, -1], images[:, :, -1] / 2)


@pytest.mark.parametrize("size", [8, 9])
def test_a_quarter_turn_is_rot90(size: int) -> None:
    images = noise(3, size, size)
    # Output (x, y) from input (y, -x): what was on the right is now below.
    turned = warp(images, affine([0, 1, 0], [-1, 0, 0]))
    torch.testing.assert_close(turned, images.rot90(-1, (1, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "limit", "start", "places"),
    [
        # Where the spot may go, as x and y against the fraction u in -1..1 of the limit.
        (
            "rotation",
            40.0,
            (10, 0),
            lambda u: (10 * math.cos(u * math.radians(40)), 10 * math.sin(u * math.radians(40))),
        ),
        ("shear", 30.0, (0, 10), lambda u: (10 * math.tan(u * math.radians(30)), 10)),
    ],
)
def test_the_drawn_angle_moves_a_spot_along_its_path_and_reaches_both_ends(
    name: str, limit: float, start: tuple[float, float], places: Any
) -> None:
    images = blob(*start).expand(400, -1, -1)
    found = centroid(augment(images, generator(), Augmentation(**{name: limit})))
    path = torch.tensor([places(u / 500) for u in range(-500, 501)], dtype=torch.float64)
    distance, which = torch.cdist(found, path).min(1)
    assert distance.max() < 0.05
    fractions = which / 500 - 1
    assert fractions.min() < -0.97
    assert fractions.max() > 0.97
    assert abs(fractions.double().mean()) < 0.1


def test_turning_and_slanting_together_keep_the_area() -> None:
    spots = blob(0, 0).expand(100, -1, -1)
    distorted = augment(spots, generator(), Augmentation(rotation=40, shear=30))
    torch.testing.assert_close(distorted.sum((1, 2)), spots.sum((1, 2)), rtol=0.02, atol=0)


def test_width_and_height_are_scaled_apart_within_their_limits() -> None:
    images = blob(8, 8).expand(400, -1, -1)
    factors = centroid(augment(images, generator(), Augmentation(scaling=0.25))) / 8
    assert factors.min() > 0.745
    assert factors.max() < 1.255
    assert factors.min() < 0.77
    assert factors.max() > 1.23
    assert abs(torch.corrcoef(factors.T)[0, 1]) < 0.15


def test_shifts_are_drawn_apart_within_their_limit() -> None:
    shifts = centroid(augment(blob(0, 0).expand(400, -1, -1), generator(), Augmentation(translation=3)))
    assert 2.9 < shifts.max() < 3.01
    assert -3.01 < shifts.min() < -2.9
    assert abs(torch.corrcoef(shifts.T)[0, 1]) < 0.15


@pytest.mark.parametrize("smoothness", [2.0, 4.0, 7.0])
def test_the_elastic_field_moves_every_place_by_the_given_deviation_and_is_smooth(smoothness: float) -> None:
    count, basis = _bumps(28, 20, smoothness, torch.float32)
    bumps = basis[3:].double()
    assert bumps.shape == (count, 28 * 20)
    # Independent strengths of deviation 1: the covariance of the field is the product of the bumps with themselves.
    covariance = (bumps.T @ bumps).view(28, 20, 28, 20)
    deviation = bumps.norm(dim=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), rtol=0, atol=1e-5)
    # A Gaussian bump of sigma correlates as exp(-d^2 / 4 sigma^2), wherever in the picture.
    for y, x in ((0, 0), (14, 10), (13, 7)):
        for d in (1, 4, 8):
            expected = math.exp(-(d**2) / (4 * smoothness**2))
            assert float(covariance[y, x, y + d, x]) == pytest.approx(expected, abs=0.012)
            assert float(covariance[y, x, y, x + d]) == pytest.approx(expected, abs=0.012)


def test_the_elastic_amount_is_the_deviation_in_pixels() -> None:
    spots = blob(0, 0).expand(1500, -1, -1)
    moved = centroid(augment(spots, generator(), Augmentation(elastic=1.5, smoothness=12.0)))
    # So smooth a field carries the small spot along as a whole.
    assert moved.std(0).tolist() == pytest.approx([1.5, 1.5], rel=0.1)
    assert moved.mean(0).abs().max() < 0.15
    assert abs(torch.corrcoef(moved.T)[0, 1]) < 0.1


@pytest.mark.parametrize("shape", [(28, 28), (9, 12), (1, 30), (1, 1)])
def test_the_shape_and_the_range_of_values_stay(shape: tuple[int, int]) -> None:
    images = noise(5, *shape).float()
    distorted = augment(images, generator(), EVERYTHING)
    assert distorted.shape == images.shape
    assert distorted.dtype == torch.float32
    assert distorted.min() >= 0
    assert distorted.max() <= images.max() * (1 + 1e-5)
    assert not torch.equal(distorted, images)


def test_the_same_generator_state_gives_the_same_images_and_another_gives_others() -> None:
    images = noise(8, 28, 28)
    first = augment(images, generator(1), EVERYTHING)
    assert torch.equal(first, augment(images, generator(1), EVERYTHING))
    assert not torch.equal(first, augment(images, generator(2), EVERYTHING))


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augment(noise(), generator(), EVERYTHING)
    assert torch.equal(torch.get_rng_state(), state)


def test_each_image_is_distorted_in_its_own_way_and_depends_on_no_other() -> None:
    images = noise(1, 28, 28).repeat(6, 1, 1)
    distorted = augment(images, generator(), EVERYTHING)
    assert torch.cdist(distorted.view(6, -1), distorted.view(6, -1))[~torch.eye(6, dtype=torch.bool)].min() > 0.5
    changed = images.clone()
    changed[2] = 0
    again = augment(changed, generator(), EVERYTHING)
    assert again[2].abs().max() == 0
    others = [0, 1, 3, 4, 5]
    assert torch.equal(again[others], distorted[others])


def test_the_images_given_are_left_as_they_are() -> None:
    images = noise()
    before = images.clone()
    augment(images, generator(), EVERYTHING)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"rotation": -1.0}, "rotation is -1.0; expected a finite number of at least 0"),
        ({"scaling": 1.0}, "scaling is 1.0; .* at least 0 and below 1"),
        ({"shear": 90.0}, "shear is 90.0; .* below 90"),
        ({"translation": math.inf}, "translation is inf"),
        ({"elastic": math.nan}, "elastic is nan"),
        ({"smoothness": 0.5}, "smoothness is 0.5; .* at least 1"),
    ],
)
def test_amounts_out_of_range_are_named(amounts: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(**amounts)


@pytest.mark.parametrize("images", [torch.zeros(28, 28), torch.zeros(2, 28, 28, dtype=torch.uint8)])
def test_images_of_another_shape_or_type_are_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"expected \(batch, rows, columns\) of a float type"):
        augment(images, generator(), EVERYTHING)
