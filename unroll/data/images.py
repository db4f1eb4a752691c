"""Images as sequences: sets in four IDX files are read, and row t of a picture is x_t, T rows of D pixels.

A set is MNIST, which is in the package, or any folder like it.

A folder holds, plain or compressed with gzip or xz (the first bytes say which, not the name),

    train-images-idx3-ubyte   (N, rows, columns) of uint8     t10k-images-idx3-ubyte   the same for the test
    part train-labels-idx1-ubyte   (N,) whole numbers from 0       t10k-labels-idx1-ubyte

The last dash may be a dot (``train-images.idx3-ubyte``), ``t10k`` may be ``test``, the name may end in ``.gz`` or
``.xz``, and all names may start with ``emnist-SET-``, if the folder has one SET only. An optional ``classes.txt``
names the classes, one a line from class 0. An IDX file is numbers of one type in a grid of any number of dimensions:

    byte 0, 1   0, 0
    byte 2      type of the numbers (see `DTYPES`)
    byte 3      number of dimensions n
    n x 4       size of each dimension, big-endian
    the rest    the numbers, big-endian, last dimension fastest

The reader needs no torch, and this module imports it where it is used: a set can be read while torch is imported.

Sources: LeCun, Cortes, Burges: the MNIST database of handwritten digits, "file format"; LeCun, Bottou, Bengio,
Haffner: Gradient-based learning applied to document recognition. Proc. IEEE 86(11), 1998; Cohen, Afshar, Tapson, van
Schaik: EMNIST: an extension of MNIST to handwritten letters. 2017 (arXiv 1702.05373).

What it does not do: write, download anything, or read one image at a time.
"""

from __future__ import annotations

import gzip
import io
import lzma
import math
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from unroll.data.parts import Saved, check_room, listed, visible
from unroll.data.tables import lines_of, read_text
from unroll.errors import DataError, InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unroll.data.augment import Augmentation
    from unroll.data.batches import Dataset, Sequences

PACKAGED = Path(__file__).parent / "files" / "mnist"
"""The four original MNIST files."""
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""IDX type byte -> numpy dtype."""
GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
AT_ONCE = 1 << 26
"""Bytes; a gzip file that is no larger, packed or not, is unpacked in one call."""
XZ_ROOM = 1 << 27
"""Bytes for unpacking an xz file, whose header may ask for 4 GB; the highest level of xz asks for 65 MiB."""
HIGHEST_CLASS = (1 << 16) - 1

PIXELS_AT_ONCE = 1 << 18  # as float64, so many stay in the cache

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")
Part = tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]
"""Images (N, rows, columns); labels (N,), each a position in the third: the names of the classes."""
Reading = dict[Split, Future[Part]]
"""The parts of a set that a thread is reading; who takes one takes it out, so that nothing is held here for longer."""
_Key = tuple[Split, Literal["images", "labels"]]

_NAME = re.compile(
    r"(?:(?P<family>emnist-[a-z]+)-)?(?P<split>train|t10k|test)-(?P<what>images|labels)[-.]idx[13]-ubyte"
    r"(?P<packed>\.gz|\.xz)?"
)
_USUAL: dict[_Key, str] = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


def begin_loading(folder: str | Path | None) -> Reading:
    """Begin to read both parts of the set in `folder` (see `read_part`) in a thread, for `load_images`.

    What is wrong with the files is raised where a part is asked for.
    """
    work = [(split, Future[Part]()) for split in SPLITS]

    def read() -> None:
        for split, part in work:
            try:
                part.set_result(read_part(folder, split))
            except Exception as error:  # raised again where it is waited for
                part.set_exception(error)

    threading.Thread(target=read, daemon=True).start()  # which nobody waits for who ends early
    return dict(work)


def read_part(folder: str | Path | None, split: Split) -> Part:
    """One part of the image set in `folder`; None is the MNIST that comes with the package.

    Of the other part, if it is there, only the labels (for the number of classes) and the size of the images
    are read. EMNIST's images, which are stored on their side, are turned upright.

    Raises `DataError` for files that are missing or damaged, that contradict each other, or that hold
    something other than grey images and whole-number labels.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; expected 'train' or 'test'")
    folder = PACKAGED if folder is None else Path(folder)
    files = _find(folder)
    missing = [name for part, name in _USUAL.items() if part[0] == split and part not in files]
    if missing:
        there = listed(sorted(path.name for path in folder.iterdir()))
        raise DataError(f"{folder}: no {' and no '.join(missing)} (plain, .gz or .xz); the folder has {there}")
    images_file, labels_file = files[split, "images"], files[split, "labels"]
    images, labels = read_idx(images_file), _read_labels(labels_file)
    if images.dtype != np.uint8 or images.ndim != 3:
        raise DataError(
            f"{images_file} holds {images.ndim} dimensions of {images.dtype}; expected 3 (image, row, column) of uint8"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_file} holds {len(images):,} images and {labels_file.name} {len(labels):,} labels; expected as "
            "many of one as of the other: do they belong together?"
        )
    if len(images) == 0:
        raise DataError(f"{images_file} holds no images; expected at least one")

    other: Split = "test" if split == "train" else "train"
    if other_file := files.get((other, "images")):
        shape = read_idx_shape(other_file)
        if shape[1:] != images.shape[1:]:
            raise DataError(
                f"{images_file} holds images of {_times(images.shape[1:])} and {other_file.name} of "
                f"{_times(shape[1:])}; expected one size: do they belong together?"
            )
    highest = int(labels.max())
    if other_labels := files.get((other, "labels")):
        highest = max(highest, int(_read_labels(other_labels).max(initial=0)))
    if images_file.name.startswith("emnist-"):
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    return images, labels, _class_names(folder, highest)


def read_idx(path: str | Path) -> NDArray[Any]:
    """The whole file as a new, writable array in the machine's byte order.

    Raises `DataError` when the file is missing, not IDX, truncated, longer than its header says, or when its
    compression is damaged.
    """
    path = Path(path)
    with _opened(path, at_once=True) as stream:
        dtype, shape = _read_header(stream, path)
        expected = math.prod(shape) * dtype.itemsize
        described = f"{_times(shape)} numbers of {dtype.itemsize} byte{'s' * (dtype.itemsize > 1)}"
        check_room(path, math.prod(size or 1 for size in shape) * dtype.itemsize, described)
        array = np.empty(shape, dtype)
        room = memoryview(array.reshape(-1).view(np.uint8).data)
        found = 0
        # In pieces, because GzipFile makes as many bytes as it is asked for, and then copies them.
        while found < expected and (count := stream.readinto(room[found : found + AT_ONCE])):  # type: ignore[attr-defined]
            found += count
        # Reading on, to the end, is also what makes gzip and xz verify their checksums; but a little may go on for long.
        further = len(stream.read(1 << 20))
        if found + further != expected:
            what = "damaged, or two files were joined" if further else "truncated"
            more = " or more" if further == 1 << 20 else ""
            raise DataError(
                f"{path}: {what}: {found + further:,} bytes{more} after the header, which promises {expected:,} "
                f"({described}); copy or download the file again"
            )
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def first_images(split: Split, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first images (count, 28, 28) of the MNIST that comes with the package, and their labels, without reading the rest."""
    arrays = []
    for path in (_find(PACKAGED)[split, "images"], _find(PACKAGED)[split, "labels"]):
        with _opened(path) as stream:
            dtype, shape = _read_header(stream, path)
            content = stream.read(count * math.prod(shape[1:]) * dtype.itemsize)
        arrays.append(np.frombuffer(content, dtype).reshape(-1, *shape[1:]))
    return arrays[0].copy(), arrays[1].astype(np.int64)


def read_idx_shape(path: str | Path) -> tuple[int, ...]:
    """The sizes of the dimensions, from the header alone: the numbers are neither read nor checked.

    Raises `DataError` when the file is missing or does not start as an IDX file.
    """
    path = Path(path)
    with _opened(path) as stream:
        return _read_header(stream, path)[1]


def _find(folder: Path) -> dict[_Key, Path]:
    """The files of the folder's image set by their part in it."""
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise DataError(
            f"{folder} {state}; expected a folder with the four IDX files, such as {_USUAL['train', 'images']}"
        )
    families: dict[str, dict[_Key, Path]] = {}
    # Sorted, a plain file comes before its .gz, and that before its .xz: the first that is met is taken.
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and path.is_file():
            key = cast(_Key, ("train" if match["split"] == "train" else "test", match["what"]))
            families.setdefault(match["family"] or "", {}).setdefault(key, path)
    if len(families) > 1:
        names = ", ".join(f"{family}-*" if family else "train-* and t10k-*" for family in sorted(families))
        raise DataError(f"{folder} holds {len(families)} image sets ({names}); expected one: give each its own folder")
    return next(iter(families.values()), {})


def _read_labels(path: Path) -> NDArray[np.int64]:
    labels = read_idx(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{path} holds {labels.ndim} dimensions of {labels.dtype}; expected 1 of whole numbers")
    wrong = (labels < 0) | (labels > HIGHEST_CLASS)  # every class up to the highest gets a name and a row of weights
    if wrong.any():
        where = int(wrong.argmax())
        raise DataError(
            f"{path}: label {where} (counted from 0) is {labels[where]}; expected a class number from 0 to {HIGHEST_CLASS}"
        )
    return labels.astype(np.int64)


def _class_names(folder: Path, highest: int) -> tuple[str, ...]:
    path = folder / "classes.txt"
    if not path.is_file():
        return tuple(str(k) for k in range(highest + 1))
    names = tuple(visible(line).strip() for line in lines_of(read_text(path).rstrip()))
    if len(names) <= highest or not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{path} has {len(names)} lines, {len(set(names) - {''})} of them different names; expected one name a "
            f"line for each of the classes 0 to {highest}"
        )
    return names


@contextmanager
def _opened(path: Path, at_once: bool = False) -> Iterator[BinaryIO]:
    """The file's contents as a stream, unpacked where they are packed; damage met while reading is a DataError."""
    again = "copy or download the file again"
    try:
        with path.open("rb") as file:
            start = file.read(len(XZ))
            file.seek(0)
            unpacked = _unpacked(file) if at_once and start.startswith(GZIP) else None
            if unpacked is None and (start == XZ or start.startswith(GZIP)):
                with io.BufferedReader(_Xz(file), 1 << 16) if start == XZ else gzip.open(file) as stream:
                    yield cast(BinaryIO, stream)
            else:
                yield file if unpacked is None else io.BytesIO(unpacked)
    except FileNotFoundError:
        problem = "no such file; expected an IDX file, plain or compressed with gzip or xz"
    except EOFError:
        problem = f"truncated: the compressed data break off after {path.stat().st_size:,} bytes; {again}"
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        problem = f"damaged compression ({error}); {again}"
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error}); expected an IDX file"
    else:
        return
    raise DataError(f"{path}: {problem}")


class _Xz(io.RawIOBase):
    """An xz file, unpacked; as lzma.open, but within `XZ_ROOM`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_ROOM)

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        found, step = b"", 1 << 16
        while not found:
            packed = b""
            if self._unpacking.eof:  # several streams may follow each other, with zeros between them
                packed = self._unpacking.unused_data.lstrip(b"\0") or self._file.read(step).lstrip(b"\0")
                if not packed:
                    return 0
                self._unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_ROOM)
            elif self._unpacking.needs_input and not (packed := self._file.read(step)):
                raise EOFError
            found = self._unpacking.decompress(packed, len(room))
        room[: len(found)] = found
        return len(found)


def _unpacked(file: BinaryIO) -> bytes | None:
    """What a gzip file holds; None where that is large, broken off or in several pieces, to be read as a stream.

    In one call: a thread that unpacks piece by piece waits for Python's lock at each while torch is imported.
    """
    packed = file.read(AT_ONCE + 1)
    file.seek(0)
    if len(packed) > AT_ONCE or int.from_bytes(packed[-4:], "little") > AT_ONCE:  # it ends with its length unpacked
        return None
    unpacking = zlib.decompressobj(wbits=31)
    contents = unpacking.decompress(packed, AT_ONCE)
    return contents if unpacking.eof and not unpacking.unused_data else None


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\x00\x00" or magic[2] not in DTYPES or not 0 < magic[3] <= 32:
        known = ", ".join(f"{code:02x}" for code in DTYPES)
        raise DataError(
            f"{path}: not an IDX file: it starts with the bytes {magic.hex(' ') or '(none: it is empty)'}; "
            f"expected 00 00, a type ({known}) and a number of dimensions, as 00 00 08 03 for images"
        )
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(
            f"{path}: truncated: the header has {4 + len(sizes)} bytes; expected {4 + 4 * magic[3]} for "
            f"{magic[3]} dimensions: copy or download the file again"
        )
    return np.dtype(DTYPES[magic[2]]), tuple(np.frombuffer(sizes, ">u4").tolist())


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)


# --------------------------------------------------------------------------------------------- tensors, and the encoder


def load_images(
    folder: str | Path | None = None, split: Split = "train", reading: Reading | None = None
) -> tuple[Sequences, tuple[str, ...]]:
    """`read_part` as tensors, and the names of the classes; taken out of `reading` where the set's reading was begun."""
    import torch

    from unroll.data.batches import Sequences

    images, labels, names = read_part(folder, split) if reading is None else reading.pop(split).result()
    return Sequences(torch.from_numpy(images), torch.from_numpy(labels)), names


def pixel_moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of uint8 images of any shape, on a scale from 0 to 1.

        mean = sum p / (255 n),   std^2 = (n sum p^2 - (sum p)^2) / (255 n)^2

    over the n pixels p. The sums are whole numbers, so that nothing is rounded before the last division and the result is
    the same on every machine.

    Raises `InputError` for images of another type or none, `DataError` where all pixels are equal.
    """
    import torch

    if images.dtype != torch.uint8 or images.numel() == 0:
        raise InputError(f"images are {tuple(images.shape)} of {images.dtype}; expected at least one pixel of uint8")
    n, first, second = images.numel(), 0, 0
    room = torch.empty(min(n, PIXELS_AT_ONCE), dtype=torch.float64)  # whole numbers below 2^53 are exact in it
    for part in images.reshape(-1).split(PIXELS_AT_ONCE):
        p = room[: len(part)].copy_(part)
        first += int(p.sum())
        second += int(p.dot(p))
    spread = n * second - first * first
    if spread == 0:
        raise DataError(f"all {n:,} pixels have the value {first // n}; expected images that differ from blank paper")
    return first / (255 * n), float(np.sqrt(spread / (255 * n) ** 2))


@dataclass(frozen=True)
class ImageEncoder(Saved):
    """Pixels 0..255 -> numbers with the training part's mean 0 and deviation 1 (or 0..1 for mean 0 and std 1)."""

    class_names: tuple[str, ...]
    rows: int
    columns: int
    mean: float
    std: float
    augmentation: Augmentation | None = None
    pictures: Literal["digits", "plain"] = "digits"
    """How picture files are prepared: see `unroll.data.pictures.load_picture`."""
    task: ClassVar[str] = "images"
    unsaved = ("augmentation",)

    @property
    def input_size(self) -> int:
        return self.columns

    def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 images (B, T, D) -> (T, B, D); distorted at random where a generator is given."""
        import torch

        if generator is not None and self.augmentation is not None and self.augmentation.any():
            from unroll.data.augment import augment

            values = augment(values.to(torch.get_default_dtype()), generator, self.augmentation)
        # (values / 255 - mean) / std in one pass; the layers take time first as a view
        return torch.add(torch.tensor(-self.mean / self.std), values.transpose(0, 1), alpha=1 / (255 * self.std))

    def encode(self, inputs: Sequence[Any]) -> tuple[Tensor, None]:
        """Picture files or uint8 arrays (T, D) -> values (N, T, D)."""
        import torch

        from unroll.data.pictures import load_picture  # with Pillow, which training does without

        def picture(item: Any) -> Tensor:
            if isinstance(item, str | Path):
                return load_picture(Path(item), self.rows, self.columns, self.pictures)
            array = torch.as_tensor(np.asarray(item))
            if array.dtype != torch.uint8 or array.shape != (self.rows, self.columns):
                raise InputError(
                    f"a picture has shape {tuple(array.shape)} and type {array.dtype}; "
                    f"expected ({self.rows}, {self.columns}) of uint8, or the name of a picture file"
                )
            return array

        return torch.stack([picture(item) for item in inputs]), None


def centred_signs(images: Tensor) -> bool:
    """Whether uint8 images (N, rows, columns) are prepared as MNIST's, nearly all of some hundred of them.

    Then ink fits into a box of 20/28 of the image, give or take a pixel, and its centre of mass is in the middle.
    """
    import torch

    ink = images[:500].double()
    rows, columns = ink.shape[1:]
    total = ink.sum((1, 2)).clamp(min=1)
    fits = torch.ones(len(ink), dtype=torch.bool)
    for axis, size in ((1, rows), (2, columns)):
        along = ink.sum(3 - axis)  # (N, size)
        steps = torch.arange(size, dtype=torch.float64)
        inked = along > 0
        extent = size - inked.int().argmax(1) - inked.flip(1).int().argmax(1)
        fits &= ((along @ steps / total - size // 2).abs() <= 1) & (extent <= size * 20 / 28 + 1)
    return float(fits.double().mean()) > 0.9


def load_image_dataset(
    folder: str | None,
    standardise: bool,
    validation: float = 0.0,
    augmentation: Augmentation | None = None,
    reading: Reading | None = None,
    pictures: Literal["auto", "digits", "plain"] = "auto",
) -> Dataset:
    """The four IDX files in `folder` (None: the MNIST that comes with the package); `reading` may be under way.

    Args:
        pictures: how picture files are to be prepared; ``"auto"``: as the images are.
    """
    from unroll.data.batches import Dataset

    (train, class_names), (test, _) = (load_images(folder, split, reading) for split in SPLITS)
    held_out = None
    if validation:
        train, held_out = train.hold_out(validation)
    mean, std = pixel_moments(train.values) if standardise else (0.0, 1.0)
    rows, columns = train.values.shape[1:]
    if augmentation is not None:
        augmentation.check(rows, columns)
    if pictures == "auto":
        pictures = "digits" if folder is None or centred_signs(train.values) else "plain"
    encoder = ImageEncoder(class_names, rows, columns, mean, std, augmentation, pictures)
    return Dataset(encoder, train, held_out, test)


def load_test_images(folder: str | None, encoder: ImageEncoder) -> Sequences:
    """The test part in `folder` (None: of the packaged MNIST), for a model that was trained with `encoder`.

    Raises:
        DataError: the pictures are of another size, or there are more classes than the model knows.
    """
    part, _ = load_images(folder, "test")
    where, size = folder or "the packaged MNIST", tuple(part.values.shape[1:])
    if size != (encoder.rows, encoder.columns):
        raise DataError(f"{where}: pictures of {size}, but the model reads ({encoder.rows}, {encoder.columns})")
    if (highest := int(part.y.max())) >= len(encoder.class_names):
        raise DataError(f"{where}: label {highest}, but the model knows {len(encoder.class_names)} classes")
    return part
