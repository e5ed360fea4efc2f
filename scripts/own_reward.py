"""A reward of one's own, for own_reward.yaml: images (B, 3, H, W) in [0, 1], B prompts, B records -> (B,) scores."""


def warmth(images, prompts, metadata):
    """Mean red minus mean blue."""
    return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))
