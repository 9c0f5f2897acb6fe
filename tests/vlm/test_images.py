from __future__ import annotations

import hashlib
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy
import pytest
from PIL import Image

from veridical.errors import UserError
from veridical.records import ImageFile
from veridical.vlm.images.files import ImageError, open_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def refused(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(path)
    error = caught.value
    assert isinstance(error, UserError)
    assert str(path) in str(error)
    assert error.remedy in str(error)
    return error


def halves(left, right, size=(32, 16), mode="RGB") -> Image.Image:
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def near(pixel, wanted, tolerance=40) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, wanted, strict=True))


def test_an_ordinary_picture_and_its_record(tmp_path):
    path = tmp_path / "gräßlich 图.png"
    halves(RED, BLUE).save(path)
    for image in (path, ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())):
        opened = open_image(image)
        assert (opened.mode, opened.size) == ("RGB", (32, 16))
        assert opened.getpixel((0, 0)) == RED
        assert opened.getpixel((31, 0)) == BLUE
    path.unlink()
    assert opened.getpixel((5, 5)) == RED  # read in full, not from the file later


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files(tmp_path, share):
    picture = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8))
    for ending in ("png", "jpg", "webp", "gif", "tiff"):
        path = tmp_path / f"cut.{ending}"
        picture.save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert refused(path).reason == "corrupt-image"


def test_png_with_a_wrong_byte(tmp_path):
    path = tmp_path / "flipped.png"
    halves(RED, BLUE).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(content)
    assert refused(path).reason == "corrupt-image"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"This is a text, whatever the name says.", "not-an-image"),
        (b"", "not-an-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-an-image"),
        (b"\x89PNG\r\n\x1a\n and then nothing sensible", "corrupt-image"),
    ],
)
def test_what_is_no_picture(tmp_path, content, reason):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    assert refused(path).reason == reason


def test_an_image_that_was_changed_since_it_was_read_is_named(tmp_path):
    path = tmp_path / "a.png"
    halves(RED, BLUE).save(path)
    image = ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
    halves(BLUE, RED).save(path)
    with pytest.raises(ImageError, match="holds other bytes than") as caught:
        open_image(image)
    assert caught.value.reason == "image-changed"
    assert open_image(path).getpixel((0, 0)) == BLUE


def test_pipes_devices_and_sparse_giants_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "giant.png").touch()
    os.truncate(tmp_path / "giant.png", 2**40)
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert [refused(tmp_path / name).reason for name in ("pipe.png", "zero.png", "giant.png")] == [
        "not-an-image", "not-an-image", "image-too-large",
    ]  # fmt: skip


def test_missing_files_and_folders(tmp_path):
    assert refused(tmp_path / "nowhere.png").reason == "missing-image"
    assert refused(tmp_path).reason == "missing-image"


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "print.jpg"
    halves(RED, BLUE).convert("CMYK").save(path, quality=95)
    opened = open_image(path)
    assert opened.mode == "RGB"
    assert near(opened.getpixel((2, 8)), RED)
    assert near(opened.getpixel((29, 8)), BLUE)


def test_16_bit_grey_keeps_its_shades(tmp_path):
    levels = numpy.array([[0, 1000, 32768, 65535] * 4] * 8, dtype=numpy.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(levels).save(path)
    assert numpy.asarray(open_image(path))[0, :4, 0].tolist() == [0, 4, 128, 255]
    tiff = tmp_path / "deep.tiff"
    Image.fromarray(levels.astype(numpy.int32)).save(tiff)
    assert numpy.asarray(open_image(tiff))[0, :4, 0].tolist() == [0, 4, 128, 255]
    Image.fromarray((levels / 65535).astype(numpy.float32)).save(tiff)
    assert numpy.asarray(open_image(tiff))[0, :4, 0].tolist() == [0, 4, 128, 255]


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_animations_show_their_first_frame(tmp_path, ending):
    path = tmp_path / f"moving.{ending}"
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), BLUE)
    first.save(path, save_all=True, append_images=[second], duration=50)
    with Image.open(path) as check:
        assert check.n_frames == 2
    assert near(open_image(path).getpixel((8, 8)), RED, 2)


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (500, 7)])
def test_too_small(tmp_path, size):
    path = tmp_path / "dot.png"
    Image.new("RGB", size).save(path)
    assert refused(path).reason == "image-too-small"


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_100, 12_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_not_unpacked(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(side, side))
    assert refused(path).reason == "image-too-large"


def test_rotation_of_the_camera(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise to stand upright
    halves(RED, BLUE).save(path, exif=exif, quality=95)
    opened = open_image(path)
    assert opened.size == (16, 32)
    assert near(opened.getpixel((8, 2)), RED)
    assert near(opened.getpixel((8, 29)), BLUE)


def test_broken_exif_does_not_cost_the_picture(tmp_path):
    path = tmp_path / "exif.jpg"
    halves(RED, BLUE).save(path, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xffgarbage", quality=95)
    assert near(open_image(path).getpixel((2, 8)), RED)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(tmp_path, mode):
    path = tmp_path / "clear.png"
    image = halves((255, 0, 0, 255), (0, 0, 0, 0), mode="RGBA")
    image.convert(mode).save(path)
    opened = open_image(path)
    assert opened.getpixel((29, 8)) == (255, 255, 255)
    assert opened.getpixel((2, 8)) != (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours(tmp_path, mode):
    path = tmp_path / "plain.png"
    halves((255, 255, 255), (0, 0, 0)).convert(mode).save(path)
    opened = open_image(path)
    assert opened.mode == "RGB"
    assert opened.getpixel((2, 8)) == (255, 255, 255)
    assert opened.getpixel((29, 8)) == (0, 0, 0)


def test_what_is_wrong_with_an_image_reaches_another_process_whole(tmp_path):
    error = refused(tmp_path / "absent.png").of("record 7")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(again).startswith("record 7: ")
    assert (again.path, again.reason, again.detail, again.remedy) == (
        error.path, error.reason, error.detail, error.remedy,
    )  # fmt: skip
