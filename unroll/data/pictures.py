"""Picture files -> images as those that a model was trained on: plain, or of one handwritten sign, as those of MNIST.

A plain picture keeps its grey values; only its size is changed, where it has another. A sign may have any size and place, and its
paper any colour: it becomes an image as MNIST's own were made (LeCun, Bottou, Bengio, Haffner: Gradient-based learning
applied to document recognition. Proc. IEEE 86(11), 1998, section III.A): scaled to fit a box of 20 x 20 pixels with their
proportions kept, which makes them grey by anti-aliasing, then laid into a field of 28 x 28 pixels with their centre of mass in
the middle; ink is 255, paper 0. In the files the middle is row 14, column 14, counted from 0, to whole pixels; here too.

What it does not do: find several signs in one picture, straighten slanted ones, even out shadows across a photograph,
or thicken strokes that are much thinner than those of the training images.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor

from unroll.errors import DataError, InputError
from unroll.files import refuse_special

Kind = Literal["digits", "plain"]
Grey = NDArray[np.float32]
"""(height, width), 0 to 255."""

LARGEST_SIDE = 1024
"""Pixels; larger pictures are reduced to it first, which also averages their noise away."""
FAINTEST = 12.0
"""The least difference between ink and paper, of 255 levels, that counts as something drawn."""
EDGE = 32.0
"""Levels by which the edge of a stroke on no paper differs from its core, where paper was taken out around it."""
FRAME = 64.0
"""Levels by which a frame differs from the paper inside it."""
TOUCHING = np.ones((3, 3), dtype=bool)
"""Of a pixel and those around it: all touch it, corners included."""


def load_picture(path: str | Path, rows: int = 28, columns: int = 28, kind: Kind = "digits") -> Tensor:
    """The picture as a uint8 image (rows, columns).

    Any file format, orientation tag and depth of 1 to 16 bits; colours become grey.

    Args:
        kind: ``"plain"``: grey values as they are. ``"digits"``: ink 255 on paper 0, scaled and centred as MNIST's were; dark on
            light or light on dark: what the border of the picture has most is the paper, once a frame around it is cut off.
            Specks far smaller than the sign are left out when its extent is measured.

    Raises `DataError` when the file is missing, no picture, damaged or blank, or a plain picture has transparent pixels or other
    proportions; `InputError` for a size below 1.
    """
    path = Path(path)
    if rows < 1 or columns < 1:
        raise InputError(f"rows x columns is {rows} x {columns}; expected at least 1 x 1")
    picture = _open(path)
    image = _plain(picture, path, rows, columns) if kind == "plain" else _sign(picture, path, rows, columns)
    return torch.from_numpy(image.round().clip(0, 255).astype(np.uint8))


def _open(path: Path) -> Image.Image:
    """The picture, upright."""
    try:
        refuse_special(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        with warnings.catch_warnings():
            # Pillow warns of files it can still read and of very large ones; the largest it refuses by an error.
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                # Before anything else touches all pixels: a JPEG is decoded at a fraction of its size right away.
                opened.draft(None, (LARGEST_SIDE, LARGEST_SIDE))
                picture = ImageOps.exif_transpose(opened)
                picture.load()
                return picture
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        problems = {
            FileNotFoundError: "no such file; expected a picture (PNG, JPEG, ...)",
            UnidentifiedImageError: "not a picture in a format that Pillow knows; expected PNG, JPEG, ...",
            Image.DecompressionBombError: f"{reason}; reduce the picture first",
        }
        damaged = f"cannot be read as a picture ({reason}); is the file damaged?"
        raise DataError(f"{path}: {problems.get(type(error), damaged)}") from None


def _opacity(picture: Image.Image) -> Image.Image | None:
    """The channel of opacity; None where nothing is transparent."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return None
    opacity = picture.convert("RGBA").getchannel("A")
    return None if opacity.getextrema() == (255, 255) else opacity


# -------------------------------------------------------------------------------------------------------------- plain


def _plain(picture: Image.Image, path: Path, rows: int, columns: int) -> Grey:
    if _opacity(picture) is not None:
        raise DataError(f"{path}: has transparent pixels; lay it on a background as that of the training pictures")
    width, height = picture.size
    if abs(width * rows / height - columns) > 1:
        raise DataError(
            f"{path}: is {width} x {height} pixels, and the model reads {columns} x {rows}; cut it to these proportions"
        )
    if picture.mode.startswith(("I", "F")):
        deep = np.asarray(picture, dtype=np.float32)
        if picture.mode == "F" or not 0 <= deep.min() <= deep.max() <= 65535:
            raise DataError(f"{path}: has pixels of {picture.mode!r}; expected grey values of at most 16 bits")
        grey = Image.fromarray(deep / 257)
    else:
        grey = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.float32))
    if picture.size != (columns, rows):
        grey = grey.resize((columns, rows), Image.Resampling.BILINEAR)  # which averages where it reduces
    return np.asarray(grey)


# --------------------------------------------------------------------------------------------------------------- signs


def _sign(picture: Image.Image, path: Path, rows: int, columns: int) -> Grey:
    ink = _ink(_without_frame(_grey(picture)))
    if ink is None:
        raise DataError(f"{path}: blank: nothing stands out from the paper; expected one sign drawn on it")
    ink = ink[_extent(ink)]
    # 20 of 28 pixels, or the same share of another size.
    box_rows, box_columns = max(1, round(rows * 20 / 28)), max(1, round(columns * 20 / 28))
    scale = min(box_rows / ink.shape[0], box_columns / ink.shape[1])
    height, width = (max(1, round(size * scale)) for size in ink.shape)
    # Pillow widens this filter when it reduces: that is the anti-aliasing.
    sign = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR))
    return _centred(sign * (255 / sign.max()), rows, columns)


def _grey(picture: Image.Image) -> Grey:
    """The picture without colours, on paper where it was transparent."""
    if picture.mode.startswith(("I", "F")):  # 16 bits and more: Pillow's own conversion would cut off at 255
        deep = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        deep = deep - deep.min()
        picture = Image.fromarray((deep * (255 / max(float(deep.max()), 1e-30))).astype(np.uint8))
    opacity = _opacity(picture)
    picture = _reduced((picture if opacity is None else picture.convert("RGBA")).convert("L"))
    if opacity is not None:
        grey = np.asarray(picture, dtype=np.float32)
        alpha = np.asarray(_reduced(opacity), dtype=np.float32) / np.float32(255)
        picture = Image.fromarray((grey * alpha + _paper(grey, alpha) * (1 - alpha)).round().astype(np.uint8))
    if min(picture.size) >= 84:  # strokes of a smaller picture may be too thin to survive it
        picture = picture.filter(ImageFilter.MedianFilter(3))
    return np.asarray(picture, dtype=np.float32)


def _without_frame(grey: Grey) -> Grey:
    """What is left once a line of one colour along a whole side is cut off, on each side that has one."""
    deepest = min(grey.shape) // 8

    def line(depth: int) -> tuple[float, float]:
        """Grey value of the pixels so far from the upper edge, and the share of them that have it."""
        value = float(np.median(grey[depth]))
        return value, float((np.abs(grey[depth] - value) < FRAME / 2).mean())

    for _ in range(8):  # twice around, for the paper outside of a frame is such a line too
        edge, alike = line(0)
        for depth in range(1, deepest + 1) if alike >= 0.9 else ():
            value, alike = line(depth)
            if abs(value - edge) > FRAME and alike > 0.5:
                if abs(line(depth + 1)[0] - value) > FRAME / 4:
                    depth += 1  # the frame's soft inner edge
                grey = grey[depth:]
                break
        grey = np.rot90(grey)
    return grey


def _paper(grey: Grey, alpha: Grey) -> float:
    """The grey value of the paper of a picture that is transparent in places."""
    if np.median(_border(alpha)) >= 0.5:
        return float(np.median(_border(grey)))
    # Drawn on nothing. Where paper was taken out around a stroke, what is left at the edge is half paper; where it was drawn
    # without any, edge and core have one colour, and the paper is the one that it shows best on.
    visible = alpha > 0.5
    if not visible.any():
        visible = alpha == alpha.max()
    edge = visible & ndimage.binary_dilation(~visible, TOUCHING)
    outside, all_of_it = float(grey[edge].mean() if edge.any() else 0), grey[visible]
    core = float(np.percentile(all_of_it, 5 if outside > np.median(all_of_it) else 95))
    if abs(outside - core) < EDGE:
        return 0.0 if float(all_of_it.mean()) > 127 else 255.0
    return 255.0 if outside > core else 0.0


def _reduced(picture: Image.Image) -> Image.Image:
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BOX)
    return picture


def _ink(grey: Grey) -> Grey | None:
    """How much each pixel differs from the paper, 0 to 255 for the most, noise cut off; None where nothing does."""
    border = _border(grey)
    paper = np.median(border)
    # Three standard deviations of the noise, whatever else is on the border.
    floor = 3 * 1.4826 * float(np.median(np.abs(border - paper)))
    difference = grey - paper
    # Dark on light or light on dark: whichever side reaches further from the paper.
    ink = difference if difference.max() > -difference.min() else -difference
    strongest = float(ink.max())
    if strongest < max(FAINTEST, 2 * floor):
        return None
    cut: Grey = np.clip((ink - floor) * (255 / (strongest - floor)), 0, 255).astype(np.float32)
    return cut


def _border(grey: Grey) -> Grey:
    """The pixels within 2% of the edge, at least one row or column on each side, as a vector."""
    width = max(1, min(grey.shape) // 50)
    inside = np.zeros(grey.shape, dtype=bool)
    inside[width:-width, width:-width] = True
    return grey[~inside]


def _extent(ink: Grey) -> tuple[slice, slice]:
    """The rows and columns of the sign, specks aside.

    A speck is a connected piece of less than a fiftieth of the area of the largest piece. Pieces are found on a grid of
    at most 128 x 128 cells, so that broken strokes hold together and large pictures cost no more than small ones.
    """
    marked = ink > 255 / 4
    height, width = marked.shape
    side = -(-max(height, width) // 128)  # rounded up
    padded = np.pad(marked, ((0, -height % side), (0, -width % side)))
    cells = padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side).sum((1, 3))
    pieces, count = ndimage.label(cells, TOUCHING)
    areas = ndimage.sum_labels(cells, pieces, np.arange(1, count + 1))
    kept = 1 + np.flatnonzero(areas >= areas.max() / 50)
    boxes = ndimage.find_objects(pieces)
    inner = [k for k in kept if not any(_frames(pieces == k, boxes[k - 1], boxes[other - 1]) for other in kept)]
    kept = np.array(inner or kept)
    areas[[k - 1 for k in range(1, count + 1) if k not in kept]] = 0
    kept = kept[areas[kept - 1] >= areas.max() / 50]
    sign = np.isin(pieces, kept).repeat(side, 0).repeat(side, 1)[:height, :width]
    # Faint edge pixels belong to the sign where they touch it: anti-aliased outlines would shrink otherwise.
    sign = (ink > 255 / 16) & ndimage.binary_dilation(sign & marked, TOUCHING)
    rows, columns = ndimage.find_objects(sign.astype(np.uint8))[0]
    return rows, columns


def _frames(piece: NDArray[np.bool_], box: tuple[slice, slice], other: tuple[slice, slice]) -> bool:
    """Whether a piece is a frame around another one: all of it lies along the sides of its box, and the other inside."""
    if not all(a.start < b.start and b.stop < a.stop for a, b in zip(box, other, strict=True)):
        return False
    rows, columns = (index - side.start for index, side in zip(np.nonzero(piece), box, strict=True))
    height, width = (side.stop - side.start for side in box)
    near = np.minimum(np.minimum(rows, height - 1 - rows) / height, np.minimum(columns, width - 1 - columns) / width)
    return bool((near <= 0.08).mean() > 0.97)


def _centred(sign: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """The sign on empty paper, its centre of mass as near to the middle as whole pixels and the edges allow."""
    height, width = sign.shape
    row, column = ndimage.center_of_mass(sign)
    top = min(max(round(rows // 2 - row), 0), rows - height)
    left = min(max(round(columns // 2 - column), 0), columns - width)
    return np.pad(sign, ((top, rows - height - top), (left, columns - width - left)))
