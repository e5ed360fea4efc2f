"""Reading image files: the same scene at any depth and in any mode is the same picture."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffalign.data.images import image_suffixes, read_image


@pytest.fixture
def grey() -> np.ndarray:
    """(5, 7) grey levels of 8 bits that are exact in 16."""
    return np.linspace(0, 255, 35).round().reshape(5, 7)


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_their_eight_bit_twin(grey: np.ndarray, tmp_path: Path, name: str) -> None:
    deep = read_image(saved(Image.fromarray((grey * 257).astype(np.uint16)), tmp_path / name))
    twin = read_image(saved(Image.fromarray(grey.astype(np.uint8)), tmp_path / f"twin_{name}"))
    assert deep.shape == (3, 5, 7) and deep.dtype == torch.float32
    assert torch.allclose(deep, twin, atol=1e-6)
    assert deep.min() == 0 and deep.max() == 1


def test_levels_between_those_of_eight_bits_are_kept(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.full((2, 2), 8000, np.uint16)), tmp_path / "a.png")
    assert read_image(path).unique().item() == pytest.approx(8000 / 65535, abs=1e-7)


def test_white_at_zero_is_read_from_the_tags(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert read_image(saved(ramp, tmp_path / "a.tif", tiffinfo={262: 0}))[0].tolist() == [[1, 0]]


def test_twelve_bits_are_read_from_the_tags(tmp_path: Path) -> None:
    """Two pixels, 4095 and 0: width, height, bits, no compression, black at 0, place, channels, rows, bytes."""
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 12) + b"\xff\xf0\0\0" + struct.pack("<H", 9) + entries + bytes(4))
    assert read_image(path)[2].tolist() == [[1, 0]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_colour_is_hidden(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    found = read_image(saved(picture.convert(mode), tmp_path / "a.png"))
    assert found[:, 0, 0].tolist() == [1, 1, 1] and found[:, 0, 1].tolist() == [0, 0, 0]


def test_half_transparent_is_half_way_to_white(tmp_path: Path) -> None:
    found = read_image(saved(Image.new("RGBA", (1, 1), (255, 0, 0, 51)), tmp_path / "a.png"))
    assert found.flatten().tolist() == pytest.approx([1, 0.8, 0.8], abs=1 / 255)


def test_a_transparent_level_of_sixteen_bits_is_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[500, 65535, 0]], np.uint16)).save(path, transparency=500)
    assert read_image(path)[0].tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_every_mode_gives_rgb(tmp_path: Path, mode: str) -> None:
    dots = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    found = read_image(saved(Image.fromarray(dots).convert("RGB").convert(mode), tmp_path / "a.tif"))
    assert found.shape == (3, 2, 3) and all(channel.tolist() == (dots / 255).tolist() for channel in found)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    path = saved(Image.new("RGB", (4, 2), "red"), tmp_path / "a.jpg", exif=exif.tobytes())
    assert read_image(path).shape == (3, 4, 2)


def test_floats_in_the_range_are_taken_and_others_refused(tmp_path: Path) -> None:
    inside = saved(Image.fromarray(np.array([[0.0, 0.25]], np.float32)), tmp_path / "a.tif")
    assert read_image(inside)[1].tolist() == [[0, 0.25]]
    outside = saved(Image.fromarray(np.array([[0.0, 90.0]], np.float32)), tmp_path / "b.tif")
    with pytest.raises(ValueError, match="b.tif cannot be read as an image .pixels from 0 to 90"):
        read_image(outside)
    whole = saved(Image.fromarray(np.array([[0, 90]], np.int32)), tmp_path / "c.tif")
    with pytest.raises(ValueError, match="no stated range"):
        read_image(whole)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 30, b"no image at all"])
def test_a_damaged_file_is_a_value_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken.png cannot be read as an image"):
        read_image(path)
    with pytest.raises(ValueError, match="gone.png cannot be read as an image .No such file"):
        read_image(tmp_path / "gone.png")


def test_the_common_formats_are_read() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff", ".ppm", ".jp2"} <= image_suffixes()
    assert not {".pdf", ".eps", ".h5", ".mpg", ".txt"} & image_suffixes()
