"""Random distortions of images: one affine map and one smooth elastic field per image, drawn anew for every batch.

Output pixel p (x to the right, y down, from the centre of the image) takes the value at q of the input:

    q = M p - t + e(p),    M = (R(rotation) S(shear) diag(s_x, s_y))^-1

The positions are linear in the numbers drawn: the entries of M and t, and the strengths of the bumps that e is the sum
of. So the positions of a whole batch are one product of those numbers (2B, K) with a fixed basis (K, rows x columns).

Sources: Simard, Steinkraus, Platt: Best practices for convolutional neural networks applied to visual document
analysis. ICDAR 2003, section 2 (elastic fields; theirs are white noise smoothed by a Gaussian of sigma 4 pixels and
scaled by alpha = 34, which is a displacement of about 1.4 pixels); Ciresan, Meier, Gambardella, Schmidhuber: Deep, big,
simple neural nets for handwritten digit recognition. Neural Computation 22(12), 2010 (the two scalings drawn apart).

What it does not do: flips, noise, cropping, changes of brightness.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from unroll.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """How strongly images are distorted; every amount is drawn evenly from -limit to +limit. All 0: not at all.

    rotation     degrees, clockwise
    scaling      share: 0.1 draws the width and, apart from it, the height between 90% and 110%
    shear        degrees of slant, below 90
    translation  pixels, to the right and, apart from it, down
    elastic      pixels: the standard deviation of the elastic displacement in each direction
    smoothness   pixels: sigma of the Gaussian bumps of the elastic field; Simard's 4 suits images of 28 x 28

    Raises `InputError` for a limit out of its range.
    """

    rotation: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    elastic: float = 0.0
    smoothness: float = 4.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least, below = (
                (1, math.inf) if name == "smoothness" else (0, {"scaling": 1, "shear": 90}.get(name, math.inf))
            )
            if not least <= value < below:
                limit = "" if below == math.inf else f" and below {below}"
                raise InputError(f"{name} is {value}; expected a finite number of at least {least}{limit}")

    def check(self, rows: int, columns: int) -> None:
        """Raise InputError where images of this size would be moved out of themselves."""
        for name, value in (("translation", self.translation), ("elastic", self.elastic)):
            if value >= min(rows, columns):
                raise InputError(
                    f"{name} is {value:g} pixels, and the pictures have {rows} x {columns}; expected fewer than "
                    f"{min(rows, columns)}, such as {name} 2"
                )

    def any(self) -> bool:
        """Whether images are distorted at all."""
        return any((self.rotation, self.scaling, self.shear, self.translation, self.elastic))


def augment(images: Tensor, generator: torch.Generator, augmentation: Augmentation) -> Tensor:
    """Images (B, rows, columns) of a float type, each distorted in its own way; same shape, 0 from outside.

    The result depends on the images, the generator's state and the augmentation only, and image b of it on image b
    only. With all limits at 0 the images themselves come back and nothing is drawn.

    Raises `InputError` for images of another shape or type.
    """
    if images.ndim != 3 or not images.is_floating_point():
        raise InputError(
            f"images are {tuple(images.shape)} of {images.dtype}; expected (batch, rows, columns) of a float type"
        )
    if not augmentation.any():
        return images
    B, rows, columns = images.shape
    bumps = _bumps(rows, columns, augmentation.smoothness, images.dtype)[0] if augmentation.elastic else 0
    # One draw for everything: on batches this small every call costs more than its arithmetic.
    drawn = torch.rand(B, 6 + 2 * bumps, generator=generator, device=generator.device)
    drawn = drawn.mul_(2).sub_(1).to(images.device, images.dtype)

    angle, slant, *_ = (drawn[:, :2] * images.new_tensor([augmentation.rotation, augmentation.shear])).deg2rad_().T
    s_x, s_y = (1 + drawn[:, 2:4] * augmentation.scaling).T
    cos, sin, tan = angle.cos(), angle.sin(), slant.tan()
    shift = drawn[:, 4:6] * augmentation.translation
    x = torch.stack(((cos + tan * sin) / s_x, (sin - tan * cos) / s_x, -shift[:, 0]), 1)
    y = torch.stack((-sin / s_y, cos / s_y, -shift[:, 1]), 1)
    affine = torch.stack((x, y), 1)  # (B, 2, 3)
    if not augmentation.elastic:
        return warp(images, affine)
    # Numbers drawn evenly from -1 to 1 have a standard deviation of 1 / sqrt(3).
    strengths = drawn[:, 6:].mul_(augmentation.elastic * math.sqrt(3)).view(B, 2, bumps)
    return warp(images, affine, strengths, augmentation.smoothness)


def warp(images: Tensor, affine: Tensor, strengths: Tensor | None = None, smoothness: float = 4.0) -> Tensor:
    """Images (B, rows, columns) with pixel p = (x, y) of each taken, bilinearly, from where it was:

        (q_x, q_y) = affine (x, y, 1) + sum_k strengths_k bump_k(x, y)

    affine is (B, 2, 3) in pixels from the centre of the image; strengths (B, 2, K) is as many bumps as `augment` lays
    over images of that size, each a Gaussian of sigma = smoothness, scaled so that independent strengths of standard
    deviation 1 move every pixel by 1 pixel (standard deviation). What lies outside is 0.
    """
    B, rows, columns = images.shape
    basis = _plane(rows, columns, images.dtype)
    if strengths is not None:
        affine = torch.cat((affine, strengths), 2)
        basis = _bumps(rows, columns, smoothness, images.dtype)[1]
    # grid_sample counts from -1 at one edge of the image to 1 at the other: half a width, half a height.
    half_sizes = images.new_tensor([2 / columns, 2 / rows])
    coefficients = (affine * half_sizes[:, None]).view(2 * B, -1)
    positions = (coefficients @ basis.to(images.device)).view(B, 2, rows, columns)
    grid = positions.permute(0, 2, 3, 1)  # (B, rows, columns, 2)
    warped: Tensor = grid_sample(images[:, None], grid, padding_mode="zeros", align_corners=False)
    return warped[:, 0]


@lru_cache(maxsize=8)
def _plane(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """(3, rows x columns): x, y and 1 of every pixel, in pixels from the centre."""
    y, x = (torch.arange(size, dtype=dtype) - (size - 1) / 2 for size in (rows, columns))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((x, y, torch.ones_like(x))).view(3, -1)


@lru_cache(maxsize=8)
def _bumps(rows: int, columns: int, smoothness: float, dtype: torch.dtype) -> tuple[int, Tensor]:
    """The number K of bumps, and `_plane` with the K bumps below it: (3 + K, rows x columns).

    Bumps stand in a square grid, 1.25 sigma apart and up to 1.25 sigma beyond the border: close enough for their sum to
    show no grid, with a tenth of the random numbers that Simard's noise at every pixel takes.
    """

    def along(size: int) -> Tensor:
        count = math.ceil((size - 1) / (1.25 * smoothness)) + 3
        places = (torch.arange(count, dtype=dtype) - (count - 1) / 2) * (1.25 * smoothness)
        pixels = torch.arange(size, dtype=dtype) - (size - 1) / 2
        heights = torch.exp(-((pixels[:, None] - places) ** 2) / (2 * smoothness**2))
        # Every pixel then moves with the same variance, at the border too.
        unit: Tensor = heights / torch.linalg.vector_norm(heights, dim=1, keepdim=True)
        return unit  # (size, count)

    bumps = torch.einsum("yi,xj->ijyx", along(rows), along(columns)).reshape(-1, rows * columns)
    return len(bumps), torch.cat((_plane(rows, columns, dtype), bumps))
