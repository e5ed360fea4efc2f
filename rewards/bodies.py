"""Bodies of scoring requests: JSON with PNG images, or one safetensors file. Nothing here can run code of the sender.

A JSON body holds the fields and `images`, each a PNG file in base64. A safetensors body holds the tensor `images`
`(B, 3, H, W)` and the fields, as JSON, under `request` in the file's own metadata. Tensors inside the metadata of a
prompt (reference images) travel as images or tensors of the same body: a mark stands in their place.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from diffalign.rewards.images import to_uint8

JSON = "application/json"
SAFETENSORS = "application/x-safetensors"
ENCODINGS = ("float32", "float16", "uint8", "png")
PNG_MARK, TENSOR_MARK = "$png", "$tensor"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def to_png(image: Tensor) -> str:
    """An image `(3, H, W)` in [0, 1] as a PNG file, 8 bits, in base64."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image).permute(1, 2, 0).contiguous().numpy()).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def from_png(text: Any, most_pixels: int) -> Tensor:
    """An image `(3, H, W)` in [0, 1] of a PNG file in base64; its size is checked before it is decoded.

    Raises:
        ValueError: If it is no RGB or grey PNG of 8 bits, or has more pixels than allowed.
    """
    try:
        file = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",))
        if file.width * file.height > most_pixels:
            raise ValueError(f"it has {file.width} x {file.height} pixels, at most {most_pixels} are read")
        if file.mode not in ("RGB", "L"):
            raise ValueError(f"its mode is {file.mode}; convert it to RGB first")
        pixels = np.array(file.convert("RGB"))
    except Exception as error:  # whatever a decoder finds in a stranger's bytes
        raise ValueError(f"an image is no PNG file in base64 that can be read: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255


def pack(fields: Mapping[str, Any], images: Tensor, encoding: str) -> tuple[str, bytes]:
    """The body of a request.

    Args:
        fields: What the request says beside its images; tensors in it travel with them.
        images: `(B, 3, H, W)` in [0, 1].
        encoding: One of `ENCODINGS`; `uint8` and `png` round to 8 bits.

    Returns:
        Content type and body.

    Raises:
        ValueError: If a field cannot travel: it is neither JSON nor a tensor, or, as `png`, a tensor that is no image.
    """
    if encoding == "png":
        replaced = _walk(fields, lambda tensor: {PNG_MARK: _image_to_png(tensor)})
        return JSON, _dumps({**replaced, "images": [to_png(image) for image in images]}).encode()
    sent = to_uint8(images) if encoding == "uint8" else images.detach().cpu().to(getattr(torch, encoding))
    tensors = {"images": sent.contiguous()}

    def keep(tensor: Tensor) -> dict[str, str]:
        name = f"metadata.{len(tensors)}"
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {TENSOR_MARK: name}

    text = _dumps(_walk(fields, keep))
    return SAFETENSORS, safetensors.torch.save(tensors, metadata={"request": text})


def unpack(kind: str, body: bytes, most_pixels: int) -> tuple[dict[str, Any], list[Tensor]]:
    """Fields and images `(3, H, W)` in [0, 1], float32, of a body.

    Args:
        kind: Content type.
        body: As it came.
        most_pixels: Of one image.

    Raises:
        ValueError: If the body is not what its content type says, or an image is too large.
    """
    if kind == JSON:
        fields = _loads(body)
        files = fields.pop("images", None)
        if not isinstance(files, list):
            raise ValueError("`images` is missing: a list of PNG files in base64")
        images = [from_png(file, most_pixels) for file in files]
        return _restore(fields, PNG_MARK, lambda text: from_png(text, most_pixels)), images
    fields, tensors = _read_safetensors(body)
    images = _read_images(tensors.get("images"), most_pixels)

    def tensor(name: Any) -> Tensor:
        if name not in tensors:
            raise ValueError(f"the metadata names a tensor {name!r} that is not in the file")
        return tensors[name]

    return _restore(fields, TENSOR_MARK, tensor), images


def _image_to_png(tensor: Tensor) -> str:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.is_floating_point():
        raise ValueError(
            f"a tensor {tuple(tensor.shape)} {tensor.dtype} in the metadata is no image (3, H, W) in [0, 1]: use "
            "another encoding than png"
        )
    return to_png(tensor)


def _walk(value: Any, on_tensor: Callable[[Tensor], Any]) -> Any:
    """The same value with its tensors replaced."""
    if isinstance(value, Tensor):
        return on_tensor(value)
    if isinstance(value, Mapping):
        if PNG_MARK in value or TENSOR_MARK in value:
            raise ValueError(f"the keys {PNG_MARK} and {TENSOR_MARK} are taken by the protocol")
        return {key: _walk(inner, on_tensor) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_walk(inner, on_tensor) for inner in value]
    return value


def _restore(value: Any, mark: str, read: Callable[[Any], Tensor]) -> Any:
    """The same value with tensors in place of their marks."""
    if isinstance(value, dict):
        if set(value) == {mark}:
            return read(value[mark])
        return {key: _restore(inner, mark, read) for key, inner in value.items()}
    return [_restore(inner, mark, read) for inner in value] if isinstance(value, list) else value


def _dumps(fields: Any) -> str:
    try:
        return json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"prompts and metadata have to be JSON or tensors to travel: {error}") from error


def _loads(text: bytes | str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("the request is no JSON object")
    return fields


def _read_safetensors(body: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        tensors = safetensors.torch.load(body)  # checks the header that is read again below
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        text = header["__metadata__"]["request"]
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"the body is no safetensors file with `request` in its metadata: {error}") from error
    return _loads(text), tensors


def _read_images(images: Tensor | None, most_pixels: int) -> list[Tensor]:
    if images is None or images.ndim != 4 or images.shape[1] != 3:
        given = "nothing" if images is None else tuple(images.shape)
        raise ValueError(f"the tensor `images` is (B, 3, H, W), got {given}")
    if images.shape[2] * images.shape[3] > most_pixels:
        raise ValueError(f"an image has {images.shape[2]} x {images.shape[3]} pixels, at most {most_pixels} are read")
    if images.dtype is torch.uint8:
        return list(images.float() / 255)
    if images.dtype not in FLOATS:
        raise ValueError(f"the tensor `images` is float32, float16 or uint8, got {images.dtype}")
    return list(images.float())
