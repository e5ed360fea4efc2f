"""Weight files on disk: damage, metadata, what stays readable."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffalign.models import load_policy
from diffalign.models.files import damaged_file, finish_files
from tests.tiny_pipelines import tiny_sd


def test_sorting_metadata_keeps_tensors_and_values(tmp_path):
    tensors = {"b": torch.randn(3), "a": torch.randn(2, 2)}
    metadata = {"z": "1", "format": "pt", "a": 'with "quotes"\nand lines'}
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    finish_files(tmp_path)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == metadata
    loaded = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    assert (tmp_path / "x.safetensors").read_bytes()[8:].startswith(b'{"__metadata__":{"a":')


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_header(path):
    content = bytearray(path.read_bytes())
    content[9:12] = b"\x00\x00\x00"
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("text_encoder/model.safetensors", cut, "cut off: .* bytes are missing"),
        ("unet/diffusion_pytorch_model.safetensors", break_header, "header is damaged"),
        ("vae/config.json", cut, "vae/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", lambda path: path.write_bytes(b""), "not a safetensors file"),
    ],
)
def test_a_damaged_model_folder_names_the_file(name, damage, words, tmp_path):
    tiny_sd().save_pretrained(tmp_path)
    assert damaged_file(tmp_path) is None
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=f"damaged: .*{name}") as error:
        load_policy(str(tmp_path))
    assert words.split(":")[0] in str(error.value)


def test_a_folder_without_one_of_its_files_names_the_component(tmp_path):
    tiny_sd().save_pretrained(tmp_path)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=f"{tmp_path}.*vae"):
        load_policy(str(tmp_path))
