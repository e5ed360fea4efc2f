"""The self-check passes on every kind of scheduler and sees a model that is adapted wrongly."""

from __future__ import annotations

from functools import partial

import diffusers as d
import pytest
import torch
from diffusers.guiders import AdaptiveProjectedMixGuidance

from diffalign.models import adapt
from diffalign.models.selfcheck import LIMIT, plain_call_gap
from tests.models import tiny

PROMPT = "a photo of a red circle"


@pytest.mark.filterwarnings("ignore:.*differ from the plain pipeline", "ignore:.*guides by")
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(
    ("build", "scheduler"),
    [
        (tiny.sd, None),
        (tiny.sd, d.PNDMScheduler(**tiny.SD_TABLE, skip_prk_steps=True)),
        (tiny.sd, d.DDIMScheduler(**tiny.SD_TABLE, thresholding=True)),
        (tiny.sd, d.UniPCMultistepScheduler(**tiny.SD_TABLE)),
        (tiny.sd, d.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=3)),
        (tiny.sdxl, d.EulerAncestralDiscreteScheduler(**tiny.SD_TABLE, timestep_spacing="trailing")),
        (tiny.wan, d.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)),
        (partial(tiny.hunyuan_image, guider=AdaptiveProjectedMixGuidance()), None),
        (tiny.sd3, d.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)),
    ],
)
def test_a_plain_call_is_the_roll_out(build, scheduler, guidance):
    pipeline = build()
    pipeline.scheduler = scheduler or pipeline.scheduler
    options = {"height": 32, "width": 48, "frames": 5} if build is tiny.wan else {}
    policy = adapt(pipeline, **options)
    before = pipeline.scheduler, policy.scheduler, torch.get_rng_state()
    guider = getattr(pipeline, "guider", None)  # its pipeline takes no guidance scale
    gap = plain_call_gap(policy, PROMPT, seed=3, steps=4, guidance=1.0 if guider else guidance)
    assert getattr(pipeline, "guider", None) is guider
    assert gap.mean <= gap.largest <= 1e-4
    assert (pipeline.scheduler, policy.scheduler) == before[:2] and torch.equal(torch.get_rng_state(), before[2])
    assert policy.meter.drain() == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda policy: setattr(policy, "height", 64),  # micro-conditioning of another size
        lambda policy: setattr(policy, "_encode_one", lambda p, n, real=policy._encode_one: real("blue", n)),
        lambda policy: setattr(type(policy), "_denormalised", lambda self, z: z),
    ],
)
def test_a_wrong_adapter_is_seen(spoil, monkeypatch):
    class Spoiled(type(adapt(tiny.sdxl()))):
        pass

    policy = Spoiled(tiny.sdxl(), height=24, width=40)
    arguments = policy.call_arguments(4.0)
    spoil(policy)
    policy.call_arguments = lambda *_: arguments
    assert plain_call_gap(policy, PROMPT, guidance=4.0).mean > LIMIT
