"""Stand-ins for torchvision's transforms, where it is not installed: those that digits need, by its documentation's definitions.

Random ones draw from torch's generator in the same order as torchvision's, so that a seed gives the same pictures.
"""

from __future__ import annotations

import enum
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F


class InterpolationMode(enum.Enum):
    """Ways of computing pixels between pixels."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


_PIL = {"nearest": 0, "nearest-exact": 0, "bilinear": 2, "bicubic": 3}
_BY_NUMBER = {0: "nearest", 2: "bilinear", 3: "bicubic"}
Picture = Any  # a PIL image, or a tensor (..., H, W)


def _way(interpolation: Any) -> str:
    if isinstance(interpolation, int):
        return _BY_NUMBER[int(interpolation)]
    return str(InterpolationMode(interpolation).value)


def _size(picture: Picture) -> tuple[int, int]:
    """Rows and columns."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return picture.shape[-2], picture.shape[-1]


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, numbers.Number):
        return int(size), int(size)  # type: ignore[call-overload]
    return (int(size[0]), int(size[0])) if len(size) == 1 else (int(size[0]), int(size[1]))


# --- functional -----------------------------------------------------------------------------------------------------------------


def pil_to_tensor(pic: Image.Image) -> Tensor:
    """uint8 (channels, H, W) of a picture."""
    if not isinstance(pic, Image.Image):
        raise TypeError(f"pic should be PIL Image. Got {type(pic)}")
    values = torch.from_numpy(np.array(pic))
    return (values[..., None] if values.ndim == 2 else values).permute(2, 0, 1).contiguous()


def to_tensor(pic: Any) -> Tensor:
    """(channels, H, W) of a picture or an array (H, W[, channels]); bytes are divided by 255."""
    if isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        values = torch.from_numpy((pic[..., None] if pic.ndim == 2 else pic).transpose(2, 0, 1)).contiguous()
    elif isinstance(pic, Image.Image):
        values = pil_to_tensor(pic)
    else:
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    return values.to(torch.get_default_dtype()).div(255) if values.dtype == torch.uint8 else values


def to_pil_image(pic: Any, mode: str | None = None) -> Image.Image:
    """A picture of a tensor (channels, H, W) or an array (H, W, channels); decimals are multiplied by 255."""
    if isinstance(pic, Tensor):
        pic = pic.unsqueeze(0) if pic.ndim == 2 else pic
        if pic.is_floating_point() and mode != "F":
            pic = pic.mul(255).byte()
        pic = pic.detach().cpu().numpy().transpose(1, 2, 0)
    elif not isinstance(pic, np.ndarray):
        raise TypeError(f"pic should be Tensor or ndarray. Got {type(pic)}.")
    return Image.fromarray(pic[..., 0] if pic.ndim == 3 and pic.shape[2] == 1 else pic, mode)


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """``(value - mean) / std`` for each channel."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(tensor)}")
    if not tensor.is_floating_point():
        raise TypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
    tensor = tensor if inplace else tensor.clone()
    middle, width = (torch.as_tensor(values, dtype=tensor.dtype).view(-1, 1, 1) for values in (mean, std))
    if bool((width == 0).any()):
        raise ValueError("std evaluated to zero, leading to division by zero.")
    return tensor.sub_(middle).div_(width)


def convert_image_dtype(image: Tensor, dtype: torch.dtype = torch.float) -> Tensor:
    """Values of another type, on its scale: 0 to 1 for decimals, 0 to the highest for whole numbers."""
    if image.dtype == dtype:
        return image
    if image.is_floating_point():
        return image.to(dtype) if dtype.is_floating_point else image.mul(torch.iinfo(dtype).max + 1 - 1e-3).to(dtype)
    most = torch.iinfo(image.dtype).max
    if dtype.is_floating_point:
        return image.to(dtype).div(most)
    other = torch.iinfo(dtype).max
    return (
        image.div((most + 1) // (other + 1), rounding_mode="floor").to(dtype)
        if most > other
        else image.to(dtype) * ((other + 1) // (most + 1))
    )


def resize(
    img: Picture, size: Any, interpolation: Any = "bilinear", max_size: int | None = None, antialias: bool = True
) -> Picture:
    """To rows and columns, or the shorter side to one number."""
    rows, columns = _size(img)
    if isinstance(size, numbers.Number) or len(size) == 1:
        short = _pair(size)[0]
        long = int(short * max(rows, columns) / min(rows, columns))
        if max_size is not None and long > max_size:
            short, long = int(max_size * short / long), max_size
        size = (short, long) if rows <= columns else (long, short)
    size, way = _pair(size), _way(interpolation)
    if (rows, columns) == size:
        return img
    if isinstance(img, Image.Image):
        return img.resize(size[::-1], _PIL[way])
    batch = (img if img.ndim == 4 else img.reshape(1, -1, rows, columns)).float()
    smooth = way in ("bilinear", "bicubic")
    out = F.interpolate(batch, size, mode=way, align_corners=False if smooth else None, antialias=antialias and smooth)
    if not img.is_floating_point():
        out = out.round().clamp(0, torch.iinfo(img.dtype).max) if smooth else out
    return out.reshape(*img.shape[:-2], *size).to(img.dtype)


def pad(img: Picture, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Picture:
    """With one number on all sides, two (left and right, top and bottom), or four (left, top, right, bottom)."""
    sides = [int(side) for side in (padding if isinstance(padding, Sequence) else [padding])]
    left, top, right, bottom = {1: sides * 4, 2: sides * 2, 4: sides}[len(sides)]
    if isinstance(img, Image.Image):
        if padding_mode == "constant":
            return ImageOps.expand(img, (left, top, right, bottom), fill)
        values = np.asarray(img)
        mode: Any = {"edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}[padding_mode]
        return Image.fromarray(np.pad(values, ((top, bottom), (left, right), *((0, 0),) * (values.ndim - 2)), mode))
    if padding_mode == "constant":
        return F.pad(img, (left, right, top, bottom), value=fill or 0)
    mode = {"edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}[padding_mode]
    around = [(0, 0)] * (img.ndim - 2) + [(top, bottom), (left, right)]
    return torch.from_numpy(np.pad(img.numpy(), around, mode))


def crop(img: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """The part with these first rows and columns; zeros beyond the edge."""
    if isinstance(img, Image.Image):
        return img.crop((left, top, left + width, top + height))
    rows, columns = _size(img)
    inside = img[..., max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    around = (max(-left, 0), max(left + width - columns, 0), max(-top, 0), max(top + height - rows, 0))
    return F.pad(inside, around) if any(around) else inside


def center_crop(img: Picture, output_size: Any) -> Picture:
    """The middle, with zeros around where it is larger than the picture."""
    height, width = _pair(output_size)
    rows, columns = _size(img)
    if height > rows or width > columns:
        across, down = max(width - columns, 0), max(height - rows, 0)
        img = pad(img, [across // 2, down // 2, (across + 1) // 2, (down + 1) // 2])
        rows, columns = _size(img)
    return crop(img, round((rows - height) / 2.0), round((columns - width) / 2.0), height, width)


def hflip(img: Picture) -> Picture:
    """Left for right."""
    return img.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if isinstance(img, Image.Image) else img.flip(-1)


def vflip(img: Picture) -> Picture:
    """Top for bottom."""
    return img.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if isinstance(img, Image.Image) else img.flip(-2)


def _inverse(
    center: Sequence[float], angle: float, translate: Sequence[float], scale: float, shear: Sequence[float]
) -> list[float]:
    """The map from a place in the result to one in the picture, as a, b, c, d, e, f: ``x' = ax + by + c``, ``y' = dx + ey + f``.

    It inverts translation · centre · rotation and shear and scale · centre^-1.
    """
    turn, lean, rise = (math.radians(degrees) for degrees in (angle, *shear))
    a = math.cos(turn - rise) / math.cos(rise)
    b = -math.cos(turn - rise) * math.tan(lean) / math.cos(rise) - math.sin(turn)
    c = math.sin(turn - rise) / math.cos(rise)
    d = -math.sin(turn - rise) * math.tan(lean) / math.cos(rise) + math.cos(turn)
    rows = [d / scale, -b / scale, -c / scale, a / scale]
    across, down = -center[0] - translate[0], -center[1] - translate[1]
    return [
        rows[0], rows[1], rows[0] * across + rows[1] * down + center[0],
        rows[2], rows[3], rows[2] * across + rows[3] * down + center[1],
    ]  # fmt: skip


def _mapped(img: Tensor, matrix: list[float], way: str, fill: float) -> Tensor:
    """A tensor's picture at the places that a map gives, whose origin is the picture's middle."""
    rows, columns = _size(img)
    y, x = torch.meshgrid(torch.arange(rows) - (rows - 1) / 2, torch.arange(columns) - (columns - 1) / 2, indexing="ij")
    a, b, c, d, e, f = matrix
    grid = torch.stack([(a * x + b * y + c) / (columns / 2), (d * x + e * y + f) / (rows / 2)], -1)
    batch = img.reshape(1, -1, rows, columns).float()
    batch = torch.cat([batch, torch.ones_like(batch[:, :1])], 1)  # the last channel says what is inside
    out = F.grid_sample(batch, grid[None].float(), mode=way, padding_mode="zeros", align_corners=False)
    inside, out = out[:, -1:], out[:, :-1]
    if fill:
        out = torch.where(inside < 0.5, float(fill), out) if way == "nearest" else out * inside + (1 - inside) * fill
    out = out if img.is_floating_point() else out.round()
    return out.reshape(img.shape).to(img.dtype)


def _fill(fill: Any) -> float:
    if isinstance(fill, Sequence):
        return float(fill[0])
    return float(fill or 0)


def rotate(
    img: Picture, angle: float, interpolation: Any = "nearest", expand: bool = False, center: Any = None, fill: Any = 0
) -> Picture:
    """Turned against the clock by an angle in degrees."""
    if isinstance(img, Image.Image):
        return img.rotate(angle, Image.Resampling(_PIL[_way(interpolation)]), expand, center, fillcolor=fill)
    if expand:
        raise NotImplementedError("this stand-in for torchvision does not expand tensors that it rotates")
    rows, columns = _size(img)
    middle = [0.0, 0.0] if center is None else [center[0] - columns * 0.5, center[1] - rows * 0.5]
    return _mapped(img, _inverse(middle, -angle, [0.0, 0.0], 1.0, [0.0, 0.0]), _way(interpolation), _fill(fill))


def affine(
    img: Picture,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Any,
    interpolation: Any = "nearest",
    fill: Any = 0,
    center: Any = None,
) -> Picture:
    """Turned with the clock, moved, scaled and sheared about the middle."""
    shear = [shear, 0.0] if isinstance(shear, numbers.Number) else [*shear, 0.0][:2]
    rows, columns = _size(img)
    if isinstance(img, Image.Image):
        middle = [columns * 0.5, rows * 0.5] if center is None else center
        matrix = _inverse(middle, angle, translate, scale, shear)
        return img.transform((columns, rows), Image.Transform.AFFINE, matrix, _PIL[_way(interpolation)], fillcolor=fill)
    middle = [0.0, 0.0] if center is None else [center[0] - columns * 0.5, center[1] - rows * 0.5]
    return _mapped(img, _inverse(middle, angle, translate, scale, shear), _way(interpolation), _fill(fill))


def rgb_to_grayscale(img: Picture, num_output_channels: int = 1) -> Picture:
    """Grey, by 0.2989 red + 0.587 green + 0.114 blue."""
    if isinstance(img, Image.Image):
        grey = img.convert("L")
        return grey if num_output_channels == 1 else Image.merge("RGB", [grey] * 3)
    if img.shape[-3] == 3:
        red, green, blue = img.unbind(-3)
        img = (0.2989 * red + 0.587 * green + 0.114 * blue).to(img.dtype).unsqueeze(-3)
    return img if num_output_channels == 1 else img.expand(*img.shape[:-3], 3, *img.shape[-2:])


def invert(img: Picture) -> Picture:
    """Light for dark."""
    if isinstance(img, Image.Image):
        return ImageOps.invert(img)
    return (1 if img.is_floating_point() else torch.iinfo(img.dtype).max) - img


# --- classes --------------------------------------------------------------------------------------------------------------------


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(float(low), float(high)).item())


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        return "Compose(\n" + "".join(f"    {transform}\n" for transform in self.transforms) + ")"


class Lambda:
    """A function as a transform."""

    def __init__(self, lambd: Callable[..., Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)


class ToTensor:
    """See `to_tensor`."""

    def __call__(self, pic: Any) -> Tensor:
        return to_tensor(pic)

    def __repr__(self) -> str:
        return "ToTensor()"


class PILToTensor(ToTensor):
    """See `pil_to_tensor`."""

    def __call__(self, pic: Any) -> Tensor:
        return pil_to_tensor(pic)


class ToPILImage:
    """See `to_pil_image`."""

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def __call__(self, pic: Any) -> Image.Image:
        return to_pil_image(pic, self.mode)


class ConvertImageDtype(nn.Module):
    """See `convert_image_dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        return convert_image_dtype(image, self.dtype)


class Normalize(nn.Module):
    """See `normalize`."""

    def __init__(self, mean: Any, std: Any, inplace: bool = False) -> None:
        super().__init__()
        self.mean, self.std, self.inplace = mean, std, inplace

    def forward(self, tensor: Tensor) -> Tensor:
        return normalize(tensor, self.mean, self.std, self.inplace)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class Resize(nn.Module):
    """See `resize`."""

    def __init__(
        self, size: Any, interpolation: Any = "bilinear", max_size: int | None = None, antialias: bool = True
    ) -> None:
        super().__init__()
        self.size, self.interpolation, self.max_size, self.antialias = size, interpolation, max_size, antialias

    def forward(self, img: Picture) -> Picture:
        return resize(img, self.size, self.interpolation, self.max_size, self.antialias)


class Pad(nn.Module):
    """See `pad`."""

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> None:
        super().__init__()
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def forward(self, img: Picture) -> Picture:
        return pad(img, self.padding, self.fill, self.padding_mode)


class CenterCrop(nn.Module):
    """See `center_crop`."""

    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size = _pair(size)

    def forward(self, img: Picture) -> Picture:
        return center_crop(img, self.size)


class Grayscale(nn.Module):
    """See `rgb_to_grayscale`."""

    def __init__(self, num_output_channels: int = 1) -> None:
        super().__init__()
        self.num_output_channels = num_output_channels

    def forward(self, img: Picture) -> Picture:
        return rgb_to_grayscale(img, self.num_output_channels)


class RandomHorizontalFlip(nn.Module):
    """Left for right, with probability p."""

    _flip = staticmethod(hflip)

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, img: Picture) -> Picture:
        return self._flip(img) if float(torch.rand(1)) < self.p else img


class RandomVerticalFlip(RandomHorizontalFlip):
    """Top for bottom, with probability p."""

    _flip = staticmethod(vflip)


class RandomCrop(nn.Module):
    """A part of the given size from anywhere in the padded picture."""

    def __init__(
        self, size: Any, padding: Any = None, pad_if_needed: bool = False, fill: Any = 0, padding_mode: str = "constant"
    ) -> None:
        super().__init__()
        self.size, self.padding, self.pad_if_needed = _pair(size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    def forward(self, img: Picture) -> Picture:
        if self.padding is not None:
            img = pad(img, self.padding, self.fill, self.padding_mode)
        height, width = self.size
        rows, columns = _size(img)
        if self.pad_if_needed and columns < width:
            img = pad(img, [width - columns, 0], self.fill, self.padding_mode)
        if self.pad_if_needed and rows < height:
            img = pad(img, [0, height - rows], self.fill, self.padding_mode)
        rows, columns = _size(img)
        if rows < height or columns < width:
            raise ValueError(f"Required crop size {self.size} is larger than input image size {(rows, columns)}")
        if (rows, columns) == self.size:
            return img
        top = int(torch.randint(0, rows - height + 1, (1,)))
        left = int(torch.randint(0, columns - width + 1, (1,)))
        return crop(img, top, left, height, width)


def _range(value: Any) -> tuple[float, ...]:
    if not isinstance(value, numbers.Number):
        return tuple(float(v) for v in value)
    if float(value) < 0:  # type: ignore[arg-type]
        raise ValueError(f"degrees is {value}; expected no negative number, or two")
    return (-float(value), float(value))  # type: ignore[arg-type]


class RandomRotation(nn.Module):
    """Turned by an angle from a range of degrees."""

    def __init__(
        self, degrees: Any, interpolation: Any = "nearest", expand: bool = False, center: Any = None, fill: Any = 0
    ) -> None:
        super().__init__()
        self.degrees, self.interpolation, self.expand, self.center, self.fill = (
            _range(degrees),
            interpolation,
            expand,
            center,
            fill,
        )

    def forward(self, img: Picture) -> Picture:
        return rotate(img, _uniform(*self.degrees), self.interpolation, self.expand, self.center, self.fill)


class RandomAffine(nn.Module):
    """Turned, moved (by parts of the size), scaled and sheared at random."""

    def __init__(
        self,
        degrees: Any,
        translate: Any = None,
        scale: Any = None,
        shear: Any = None,
        interpolation: Any = "nearest",
        fill: Any = 0,
        center: Any = None,
    ) -> None:
        super().__init__()
        self.degrees, self.translate, self.scale = _range(degrees), translate, scale
        self.shear = None if shear is None else _range(shear)
        self.interpolation, self.fill, self.center = interpolation, fill, center

    def forward(self, img: Picture) -> Picture:
        rows, columns = _size(img)
        angle = _uniform(*self.degrees)
        moved = (0, 0)
        if self.translate is not None:
            across, down = self.translate[0] * columns, self.translate[1] * rows
            moved = (round(_uniform(-across, across)), round(_uniform(-down, down)))
        scale = 1.0 if self.scale is None else _uniform(*self.scale)
        lean = rise = 0.0
        if self.shear is not None:
            lean = _uniform(*self.shear[:2])
            rise = _uniform(*self.shear[2:4]) if len(self.shear) == 4 else 0.0
        return affine(img, angle, moved, scale, [lean, rise], self.interpolation, self.fill, self.center)


class ToImage(PILToTensor):
    """The newer form of `pil_to_tensor`."""

    def __call__(self, pic: Any) -> Tensor:
        return pic if isinstance(pic, Tensor) else super().__call__(pic)


class ToDtype(nn.Module):
    """Another type, on its scale where asked for."""

    def __init__(self, dtype: torch.dtype, scale: bool = False) -> None:
        super().__init__()
        self.dtype, self.scale = dtype, scale

    def forward(self, image: Tensor) -> Tensor:
        return convert_image_dtype(image, self.dtype) if self.scale else image.to(self.dtype)


FUNCTIONS = (
    pil_to_tensor, to_tensor, to_pil_image, normalize, convert_image_dtype, resize, pad, crop, center_crop, hflip, vflip,
    rotate, affine, rgb_to_grayscale, invert, InterpolationMode,
)  # fmt: skip
CLASSES = (
    Compose, Lambda, ToTensor, PILToTensor, ToPILImage, ConvertImageDtype, Normalize, Resize, Pad, CenterCrop, Grayscale,
    RandomHorizontalFlip, RandomVerticalFlip, RandomCrop, RandomRotation, RandomAffine, InterpolationMode,
)  # fmt: skip
NEWER = (ToImage, ToDtype)  # of transforms.v2
