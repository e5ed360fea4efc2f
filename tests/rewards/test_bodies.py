"""Bodies of requests: what is packed comes out again, and what is no body says why."""

from __future__ import annotations

import base64
import io
import json
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from diffalign.rewards.bodies import ENCODINGS, JSON, SAFETENSORS, from_png, pack, to_png, unpack

PIXELS = 64 * 64
FIELDS = {"prompts": ["a", "é"], "metadata": [{"tag": "x", "n": 3}, {}]}


def png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(("encoding", "error"), [*zip(ENCODINGS, (0, 2**-11, 0.5 / 255, 0.5 / 255), strict=True)])
def test_images_and_fields_come_back(encoding: str, error: float) -> None:
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    kind, body = pack(FIELDS, images, encoding)
    fields, found = unpack(kind, body, PIXELS)
    assert fields == FIELDS and kind == (JSON if encoding == "png" else SAFETENSORS)
    assert (torch.stack(found) - images).abs().max() <= error + 1e-7
    assert all(image.dtype is torch.float32 for image in found)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_eight_bit_images_lose_nothing(encoding: str) -> None:
    images = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    _, (found,) = unpack(*pack({}, images, encoding), PIXELS)
    assert (found * 255 - images[0] * 255).abs().max() < 0.07  # float16 is the coarsest


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tensors_in_the_metadata_travel_with_the_images(encoding: str) -> None:
    reference = torch.zeros(3, 2, 4)
    reference[1] = 1.0
    records = [{"reference_images": [reference, reference.flip(0)], "tag": "x"}, {"source_image": reference}]
    fields, _ = unpack(*pack({"metadata": records}, torch.zeros(2, 3, 4, 4), encoding), PIXELS)
    first, second = fields["metadata"]
    assert first["tag"] == "x" and torch.equal(second["source_image"], reference)
    assert all(
        torch.equal(a, b) for a, b in zip(first["reference_images"], [reference, reference.flip(0)], strict=True)
    )


def test_a_field_that_cannot_travel_is_refused() -> None:
    images = torch.zeros(1, 3, 2, 2)
    for record in ({"file": io.BytesIO()}, {"n": float("nan")}, {"$png": "x"}, {"a": [{"$tensor": "images"}]}):
        with pytest.raises(ValueError, match="travel|taken by the protocol"):
            pack({"metadata": [record]}, images, "float32")
    with pytest.raises(ValueError, match="no image .* another encoding"):
        pack({"metadata": [{"mask": torch.zeros(4)}]}, images, "png")


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (JSON, b"{", "not JSON"),
        (JSON, b"[" * 100_000, "not JSON"),
        (JSON, b"[]", "no JSON object"),
        (JSON, b"{}", "`images` is missing"),
        (JSON, b'{"images": ["////"]}', "no PNG"),
        (JSON, b'{"images": [3]}', "no PNG"),
        (SAFETENSORS, b"", "no safetensors"),
        (SAFETENSORS, b"\xff" * 64, "no safetensors"),
        (SAFETENSORS, pickle.dumps({"images": [1]}), "no safetensors"),
        (SAFETENSORS, safetensors.torch.save({"images": torch.zeros(1, 3, 2, 2)}), "`request` in its metadata"),
        (SAFETENSORS, safetensors.torch.save({"a": torch.zeros(1)}, {"request": "{}"}), "got nothing"),
        (SAFETENSORS, safetensors.torch.save({"images": torch.zeros(3, 2, 2)}, {"request": "{}"}), "B, 3, H, W"),
        (SAFETENSORS, safetensors.torch.save({"images": torch.zeros(1, 3, 65, 64)}, {"request": "{}"}), "65 x 64"),
        (
            SAFETENSORS,
            safetensors.torch.save({"images": torch.zeros(1, 3, 2, 2, dtype=torch.int32)}, {"request": "{}"}),
            "int32",
        ),
        (
            SAFETENSORS,
            safetensors.torch.save({"images": torch.zeros(1, 3, 2, 2)}, {"request": '{"a": {"$tensor": "b"}}'}),
            "names a tensor 'b'",
        ),
    ],
)
def test_what_is_no_body_is_refused(kind: str, body: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(kind, body, PIXELS)


def test_a_file_cut_off_anywhere_is_refused() -> None:
    for encoding in ("float32", "png"):
        kind, body = pack(FIELDS, torch.rand(1, 3, 4, 4), encoding)
        for length in range(0, len(body), 7):
            with pytest.raises(ValueError):
                unpack(kind, body[:length], PIXELS)


def test_a_png_is_refused_for_its_size_before_it_is_decoded_and_for_its_mode() -> None:
    with pytest.raises(ValueError, match="8000 x 8000 pixels"):
        from_png(png(Image.new("1", (8000, 8000))), PIXELS)
    with pytest.raises(ValueError, match="no PNG.*bomb"):
        from_png(png(Image.new("1", (20000, 20000))), PIXELS)
    with pytest.raises(ValueError, match="mode is RGBA"):
        from_png(png(Image.new("RGBA", (4, 4))), PIXELS)
    with pytest.raises(ValueError, match="mode is I;16"):
        from_png(png(Image.fromarray(np.zeros((4, 4), np.uint16))), PIXELS)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="BMP")
    with pytest.raises(ValueError, match="no PNG"):
        from_png(base64.b64encode(buffer.getvalue()).decode(), PIXELS)


def test_a_json_body_is_what_the_page_says() -> None:
    kind, body = pack({"id": "1"}, torch.ones(1, 3, 2, 2), "png")
    given = json.loads(body)
    assert set(given) == {"id", "images"} and given["images"] == [to_png(torch.ones(3, 2, 2))]
    assert Image.open(io.BytesIO(base64.b64decode(given["images"][0]))).getpixel((0, 0)) == (255, 255, 255)
