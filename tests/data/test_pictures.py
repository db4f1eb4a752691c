"""Picture files become images like MNIST's, however they were made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from unroll.data.images import centred_signs, load_images
from unroll.data.pictures import load_picture
from unroll.errors import DataError, InputError


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return load_images(split="test")[0].values


def seven(size: tuple[int, int] = (200, 300), ink: int = 0, paper: int = 255, width: int = 22) -> Image.Image:
    """A 7 as a grey picture of size (width, height), drawn in its left upper part."""
    picture = Image.new("L", size, paper)
    ImageDraw.Draw(picture).line([(30, 40), (120, 40), (60, 170)], fill=ink, width=width, joint="curve")
    return picture


def loaded(picture: Image.Image, tmp_path: Path, suffix: str = ".png", **options: Any) -> Tensor:
    path = tmp_path / f"picture{suffix}"
    picture.save(path, **options)
    return load_picture(path)


def difference(one: Tensor, other: Tensor) -> float:
    """Mean difference in grey levels over the pixels where either has ink."""
    inked = (one > 0) | (other > 0)
    return float((one.double() - other.double()).abs()[inked].mean())


def extent(image: Tensor) -> tuple[int, int]:
    return int((image > 0).any(1).sum()), int((image > 0).any(0).sum())


def test_mnist_images_come_back_as_they_are(tmp_path: Path, digits: torch.Tensor) -> None:
    same = 0
    for image in digits[:60]:
        back = loaded(Image.fromarray(image.numpy()), tmp_path)
        assert back.shape == (28, 28)
        assert back.dtype == torch.uint8
        same += torch.equal(back, image)
        assert difference(back, image) < 3
    assert same > 40


def test_enlarged_inverted_and_shifted_mnist_images_come_back_nearly(tmp_path: Path, digits: torch.Tensor) -> None:
    differences = []
    for image in digits[:40]:
        large = Image.fromarray(255 - image.numpy()).resize((252, 252), Image.Resampling.BICUBIC)
        sheet = Image.new("L", (700, 400), 255)
        sheet.paste(large, (390, 20))
        differences.append(difference(loaded(sheet, tmp_path), image))
    assert np.median(differences) < 40
    shifted = [difference(image.roll(2, 1), image) for image in digits[:40]]
    assert np.median(differences) < np.median(shifted) / 2


def test_the_sign_fills_a_box_of_20_in_one_direction_keeps_its_shape_and_is_centred_by_mass(tmp_path: Path) -> None:
    image = loaded(seven(), tmp_path)
    height, width = extent(image)
    assert height == 20
    # 7 stands 152 pixels high and 112 wide, or so.
    assert width == pytest.approx(20 * 112 / 152, abs=1)
    assert image.max() == 255
    ink = image.double()
    places = torch.arange(28, dtype=torch.float64)
    assert float(ink.sum(1) @ places / ink.sum()) == pytest.approx(14, abs=0.51)
    assert float(ink.sum(0) @ places / ink.sum()) == pytest.approx(14, abs=0.51)
    # The bar is on top and the stem comes down to the left.
    rows = ink.sum(1)[ink.sum(1) > 0]
    assert rows[1] > 2 * rows[10]
    assert (ink[22] @ places) / ink[22].sum() < (ink[10] @ places) / ink[10].sum()


def test_a_wide_sign_is_as_wide_as_the_box(tmp_path: Path) -> None:
    picture = Image.new("L", (300, 100), 255)
    ImageDraw.Draw(picture).rectangle((50, 40, 249, 59), fill=0)
    assert extent(loaded(picture, tmp_path)) == (2, 20)


def on_grey(_: Image.Image) -> Image.Image:
    return seven(ink=70, paper=180)


def inverted(_: Image.Image) -> Image.Image:
    return seven(ink=255, paper=0)


def coloured(_: Image.Image) -> Image.Image:
    return Image.composite(Image.new("RGB", (200, 300), "ivory"), Image.new("RGB", (200, 300), "navy"), seven())


def palette(picture: Image.Image) -> Image.Image:
    return picture.convert("P")


def black_and_white(picture: Image.Image) -> Image.Image:
    return picture.convert("1", dither=Image.Dither.NONE)


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)


def deep_and_dark(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture).astype(np.uint16) * 12)


def dark_on_nothing(picture: Image.Image) -> Image.Image:
    return Image.merge("LA", (Image.new("L", picture.size, 0), Image.eval(picture, lambda v: 255 - v)))


def light_on_nothing(picture: Image.Image) -> Image.Image:
    white = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    white.putalpha(Image.eval(picture, lambda v: 255 - v))
    return white


def rounded_corners(picture: Image.Image) -> Image.Image:
    paper = Image.new("L", picture.size, 0)
    ImageDraw.Draw(paper).rounded_rectangle((0, 0, picture.width - 1, picture.height - 1), 25, fill=255)
    return Image.merge("LA", (picture, paper))


WAYS: list[Callable[[Image.Image], Image.Image]] = [
    on_grey,
    inverted,
    coloured,
    palette,
    black_and_white,
    deep,
    deep_and_dark,
    dark_on_nothing,
    light_on_nothing,
    rounded_corners,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_same_sign_in_other_colours_depths_and_transparencies_is_the_same_image(
    tmp_path: Path, way: Callable[[Image.Image], Image.Image]
) -> None:
    plain = loaded(seven(), tmp_path)
    assert difference(loaded(way(seven()), tmp_path), plain) < 3


@pytest.mark.parametrize(
    ("suffix", "options"), [(".jpg", {"quality": 60}), (".bmp", {}), (".gif", {}), (".webp", {}), (".tiff", {})]
)
def test_other_file_formats_are_read(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    assert difference(loaded(seven(), tmp_path, suffix, **options), loaded(seven(), tmp_path)) < 8


def test_the_orientation_tag_of_a_camera_is_obeyed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: turn it a quarter clockwise to see it upright
    lying = seven().transpose(Image.Transpose.ROTATE_90)
    upright = loaded(seven(), tmp_path, ".jpg", quality=95)
    assert difference(loaded(lying, tmp_path, ".jpg", quality=95, exif=exif), upright) < 5
    assert difference(loaded(lying, tmp_path, ".jpg", quality=95), upright) > 60


@pytest.mark.parametrize("ink", [0, 255])
def test_noise_and_specks_do_not_move_the_sign(tmp_path: Path, ink: int) -> None:
    plain = loaded(seven(), tmp_path)
    rng = np.random.default_rng(0)
    pixels = np.asarray(seven(ink=ink, paper=128)).astype(float)
    pixels += rng.normal(0, 6, pixels.shape)
    salt = rng.random(pixels.shape)
    pixels[salt < 0.002] = 0
    pixels[salt > 0.998] = 255
    pixels[280:284, 190:194] = ink  # dust
    pixels[5:9, 3:7] = ink
    noisy = loaded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), tmp_path)
    assert abs(extent(noisy)[0] - extent(plain)[0]) <= 1
    assert difference(noisy, plain) < 25
    far_from_ink = torch.nn.functional.max_pool2d(plain[None].float(), 5, 1, 2)[0] == 0
    assert float(noisy[far_from_ink].double().mean()) < 0.02


def test_a_sign_in_two_pieces_stays_whole(tmp_path: Path) -> None:
    picture = Image.new("L", (200, 200), 255)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((80, 20, 119, 49), fill=0)
    draw.rectangle((80, 100, 119, 179), fill=0)
    image = loaded(picture, tmp_path)
    places = (image > 0).any(1).nonzero()[:, 0]
    assert places[-1] - places[0] == 19
    assert 3 <= 20 - len(places) <= 7  # the gap is 50 of 160 pixels, which is 6 of 20
    assert extent(image)[1] == 5


def test_a_sign_that_touches_the_border_is_still_ink(tmp_path: Path) -> None:
    cropped = seven().crop((20, 30, 130, 180))
    assert difference(loaded(cropped, tmp_path), loaded(seven(), tmp_path)) < 30


@pytest.mark.parametrize("size", [(3000, 2000), (9, 9)])
def test_very_large_and_very_small_pictures_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = seven().crop((0, 0, 200, 200)).resize(size, Image.Resampling.BOX)
    image = loaded(picture, tmp_path)
    assert image.max() == 255
    assert max(extent(image)) == 20


def test_a_thin_line_is_drawn_at_full_strength(tmp_path: Path) -> None:
    image = loaded(seven((600, 600), width=3).resize((300, 300), Image.Resampling.BOX), tmp_path)
    assert image.max() == 255
    assert float((image > 127).sum()) > 10


@pytest.mark.parametrize(("rows", "columns"), [(28, 28), (14, 14), (56, 28), (20, 40), (1, 1), (3, 2)])
def test_other_image_sizes_keep_the_share_of_the_box(tmp_path: Path, rows: int, columns: int) -> None:
    seven().save(tmp_path / "x.png")
    image = load_picture(str(tmp_path / "x.png"), rows, columns)
    assert image.shape == (rows, columns)
    height, width = extent(image)
    box = max(1, round(rows * 20 / 28)), max(1, round(columns * 20 / 28))
    assert height <= box[0]
    assert width <= box[1]
    assert height == box[0] or width == box[1]


def noisy_paper() -> Image.Image:
    pixels = np.random.default_rng(0).normal(200, 4, (300, 300)).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (100, 100), 255),
        Image.new("RGB", (1, 1), "red"),
        Image.new("RGBA", (50, 60), (0, 0, 0, 0)),
        Image.new("I;16", (50, 60), 900),
        noisy_paper(),
    ],
    ids=["white", "one pixel", "transparent", "sixteen bits", "noisy"],
)
def test_a_blank_picture_is_refused(tmp_path: Path, picture: Image.Image) -> None:
    with pytest.raises(DataError, match=r"picture\.png: blank: nothing stands out"):
        loaded(picture, tmp_path)


def test_what_is_no_picture_is_named_in_one_line(tmp_path: Path) -> None:
    text, cut, folder = tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "folder.png"
    text.write_text("not a picture\n")
    seven().save(cut)
    cut.write_bytes(cut.read_bytes()[:200])
    folder.mkdir()
    (tmp_path / "empty.png").touch()
    for name, message in (
        ("absent.png", "no such file"),
        ("text.png", "not a picture in a format"),
        ("empty.png", "not a picture in a format"),
        ("cut.png", "cannot be read as a picture"),
        ("folder.png", "it is a folder"),
    ):
        with pytest.raises(DataError, match=f"{name}: {message}") as caught:
            load_picture(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_picture_too_large_to_be_safe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seven().save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="reduce the picture first"):
        load_picture(tmp_path / "x.png")


def test_an_image_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows x columns is 0 x 28"):
        load_picture(tmp_path / "x.png", rows=0)


def recognised(made: list[Tensor], originals: Tensor) -> int:
    """How many images differ from their original less than from any other."""
    found = torch.stack(made).double().flatten(1)
    distances = torch.cdist(found, originals.double().flatten(1))
    return int((distances.argmin(1) == torch.arange(len(found))).sum())


@pytest.mark.parametrize("light_on_dark", [False, True])
@pytest.mark.parametrize("cut", [255, 230, 160])
@pytest.mark.parametrize("side", [28, 140])
def test_paper_that_was_made_transparent_is_still_the_paper(
    tmp_path: Path, digits: torch.Tensor, light_on_dark: bool, cut: int, side: int
) -> None:
    made = []
    for image in digits[:40]:
        grey = np.asarray(Image.fromarray(255 - image.numpy()).resize((side, side), Image.Resampling.BICUBIC))
        opaque = np.where(grey >= cut, 0, 255).astype(np.uint8)
        seen = 255 - grey if light_on_dark else grey
        made.append(loaded(Image.fromarray(np.stack([seen, seen, seen, opaque], -1)), tmp_path))
    assert recognised(made, digits[:40]) >= 39


@pytest.mark.parametrize(("side", "width"), [(28, 1), (28, 3), (140, 3), (140, 12)])
@pytest.mark.parametrize("light_on_dark", [False, True])
def test_a_frame_around_a_sign_is_cut_off(
    tmp_path: Path, digits: torch.Tensor, side: int, width: int, light_on_dark: bool
) -> None:
    made = []
    for image in digits[:40]:
        picture = Image.fromarray(image.numpy() if light_on_dark else 255 - image.numpy()).resize((side, side))
        frame = (0, 0, side - 1, side - 1)
        ImageDraw.Draw(picture).rectangle(frame, outline=255 if light_on_dark else 0, width=width)
        made.append(loaded(picture, tmp_path))
    assert recognised(made, digits[:40]) >= 39


@pytest.mark.parametrize("inset", [2, 10, 25])
@pytest.mark.parametrize("sides", [4, 3])
@pytest.mark.parametrize("light_on_dark", [False, True])
def test_a_frame_inside_the_edge_or_on_three_sides_is_no_part_of_the_sign(
    tmp_path: Path, digits: torch.Tensor, inset: int, sides: int, light_on_dark: bool
) -> None:
    made = []
    for image in digits[:40]:
        inner = Image.fromarray(image.numpy() if light_on_dark else 255 - image.numpy()).resize((224, 224))
        picture = Image.new("L", (280, 280), 0 if light_on_dark else 255)
        picture.paste(inner, (28, 28))
        edge = inset if sides == 4 else 0
        points = [(edge, 279 - edge), (edge, edge), (279 - edge, edge), (279 - edge, 279 - edge), (edge, 279 - edge)]
        ImageDraw.Draw(picture).line(points[: sides + 1], fill=255 if light_on_dark else 0, width=4)
        made.append(loaded(picture, tmp_path))
    assert recognised(made, digits[:40]) >= 39


def plain(picture: Image.Image, tmp_path: Path, rows: int = 28, columns: int = 28) -> Tensor:
    path = tmp_path / "picture.png"
    picture.save(path)
    return load_picture(path, rows, columns, "plain")


def test_plain_pictures_keep_their_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (28, 20), dtype=np.uint8)
    picture = Image.fromarray(values)
    assert np.array_equal(plain(picture, tmp_path, 28, 20).numpy(), values)
    assert np.array_equal(plain(picture.convert("RGB"), tmp_path, 28, 20).numpy(), values)
    assert np.array_equal(plain(Image.fromarray(values.astype(np.uint16) * 257), tmp_path, 28, 20).numpy(), values)
    blank = np.full((28, 20), 7, np.uint8)
    assert np.array_equal(plain(Image.fromarray(blank), tmp_path, 28, 20).numpy(), blank)
    opaque = picture.convert("RGBA")
    assert np.array_equal(plain(opaque, tmp_path, 28, 20).numpy(), values)


def test_plain_pictures_of_another_size_are_averaged(tmp_path: Path) -> None:
    ramp = np.add.outer(4 * np.arange(28), np.arange(28)).astype(np.uint8)
    large = Image.fromarray(np.kron(ramp, np.ones((5, 5), np.uint8)))
    assert np.abs(plain(large, tmp_path).numpy().astype(int) - ramp)[2:-2, 2:-2].max() <= 1
    checks = Image.fromarray((np.indices((280, 280)).sum(0) % 2 * 255).astype(np.uint8))
    assert set(plain(checks, tmp_path).unique().tolist()) <= {127, 128}


def test_plain_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is 30 x 20 pixels, and the model reads 28 x 28; cut it"):
        plain(Image.new("L", (30, 20), 7), tmp_path)
    with pytest.raises(DataError, match="has transparent pixels"):
        plain(Image.new("RGBA", (28, 28), (1, 2, 3, 254)), tmp_path)
    Image.new("F", (28, 28)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"expected grey values of at most 16 bits"):
        load_picture(tmp_path / "float.tiff", kind="plain")


def test_images_that_are_centred_as_mnists_are_told_from_others(digits: torch.Tensor) -> None:
    assert centred_signs(digits)
    assert not centred_signs(digits.roll(3, 1))
    enlarged = torch.nn.functional.interpolate(digits[:200, None].float(), scale_factor=1.4, mode="bilinear")
    assert not centred_signs(enlarged[:, 0, 5:33, 5:33].to(torch.uint8))
    assert not centred_signs(torch.full((50, 28, 28), 9, dtype=torch.uint8))
