from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import diffalign.rewards as rewards
from diffalign.rewards import hps

Published = dict[str, dict[str, Any]]
WIDE = 0.3 + 0.4 * torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a cat on a mat", "two dogs"]


def test_the_score_is_the_bare_cosine_of_the_padded_picture(published: Published) -> None:
    import open_clip

    arguments = published["hpsv2"]
    model = open_clip.create_model(arguments["architecture"], load_weights=False).eval()
    file = Path(arguments["path"]) / "HPS_v2_compressed.pt"
    model.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    scaled = torch.nn.functional.interpolate(WIDE, (19, 28), mode="bicubic", antialias=True)
    square = torch.zeros(2, 3, 28, 28)
    square[:, :, 4:23] = scaled
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    with torch.no_grad():
        image = model.encode_image((square - mean[:, None, None]) / std[:, None, None])
        text = model.encode_text(open_clip.get_tokenizer(arguments["architecture"])(PROMPTS))
    expected = torch.cosine_similarity(image, text)
    assert torch.allclose(rewards.get("hpsv2", **arguments)(WIDE, PROMPTS, [{}] * 2), expected, atol=1e-5)


def test_the_two_versions_read_two_files_and_carry_two_names(published: Published) -> None:
    old, new = (rewards.get(name, **published[name]) for name in ("hpsv2", "hpsv2.1"))
    assert (old.name, new.name) == ("hpsv2", "hpsv2.1")
    assert not torch.allclose(old(WIDE, PROMPTS, [{}] * 2), new(WIDE, PROMPTS, [{}] * 2))


def test_the_published_architecture() -> None:
    open_clip = pytest.importorskip("open_clip")
    config = open_clip.get_model_config(hps.ARCHITECTURE)
    assert config["vision_cfg"]["head_width"] == 80 and not config.get("quick_gelu")
    assert config["text_cfg"]["context_length"] == 77 and config["embed_dim"] == 1024


def test_the_file_of_another_architecture_is_refused(published: Published, tmp_path: Path) -> None:
    state = torch.load(Path(published["hpsv2"]["path"]) / "HPS_v2_compressed.pt", weights_only=True)["state_dict"]
    short = {name: value[:-1] if name == "ln_final.weight" else value for name, value in state.items()}
    torch.save({"state_dict": short}, tmp_path / "HPS_v2_compressed.pt")
    with pytest.raises(ValueError, match="not the checkpoint of this model: size mismatch for ln_final.weight"):
        rewards.get("hpsv2", path=tmp_path, architecture=published["hpsv2"]["architecture"])
    with pytest.raises(ValueError, match="no architecture 'ViT-H-15'; did you mean .*`ViT-H-14`"):
        rewards.get("hpsv2", path=tmp_path, architecture="ViT-H-15")
