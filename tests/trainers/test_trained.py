"""LoRA dropout acts in updates alone; averages stand in for the weights and leave again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffalign.models import trainable_state
from diffalign.trainers.run import weights as trained
from tests.trainers.small_runs import disturb, gap, gradient, same


def layers(trainer):
    return [m for name, m in trainer.policy.denoiser.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]


def test_dropout_is_on_in_updates_and_off_in_roll_out_and_evaluation(make):
    plain, dropping = make(), make(lora_dropout=0.5)
    for trainer in (plain, dropping):
        disturb(trainer, 0.3)
    assert layers(dropping) and not any(layer.training for layer in layers(dropping))
    assert same(plain.collect(0).rewards, dropping.collect(0).rewards)
    batch = plain.collect(0)
    with trained.dropout(dropping.policy, 0, 5):
        assert all(layer.training for layer in layers(dropping))
        first = gradient(dropping, batch)
    assert not any(layer.training for layer in layers(dropping))
    assert gap(first, gradient(dropping, batch)) > 0.1


def test_its_masks_depend_on_seed_and_step_and_leave_the_global_generator(make):
    trainer = make(lora_dropout=0.5)
    disturb(trainer, 0.3)
    batch, state, found = trainer.collect(0), torch.get_rng_state(), []
    for seed, step in ((0, 5), (0, 5), (0, 6), (1, 5)):
        with trained.dropout(trainer.policy, seed, step):
            found.append(gradient(trainer, batch))
    assert same(found[0], found[1]) and torch.equal(torch.get_rng_state(), state)
    assert gap(found[2], found[0]) > 0.1 and gap(found[3], found[0]) > 0.1


def test_an_update_uses_it(make):
    after = []
    for rate in (0.0, 0.5):
        trainer = make(name=str(rate), lora_dropout=rate, max_train_steps=2)
        disturb(trainer, 0.3)
        trainer.train()
        after.append(trainable_state(trainer.policy))
    assert not same(after[0], after[1])


def test_dropout_of_a_model_itself_stays_off(make):
    trainer = make()
    trainer.policy.denoiser.extra = nn.Dropout(0.5).eval()
    with trained.dropout(trainer.policy, 0, 0):
        assert not trainer.policy.denoiser.extra.training


def test_averages_are_in_place_inside_and_gone_after_also_on_an_error(make):
    trainer = make(ema_decay=0.5, learning_rate=5e-2)
    trainer.train()
    raw = trainable_state(trainer.policy)
    with pytest.raises(RuntimeError, match="inside"), trainer.averaged():
        inside = trainable_state(trainer.policy)
        raise RuntimeError("inside")
    assert same(trainable_state(trainer.policy), raw) and not same(inside, raw)
    assert same(list(inside.values()), [p.detach() for p in trainer.ema.shadow_params])


def test_averages_move_by_their_decay_every_so_many_steps(make):
    trainer = make(ema_decay=0.5, ema_update_every=2, max_train_steps=6)
    seen, real = [], trainer.ema.step
    trainer.ema.step = lambda parameters: (seen.append(trainer.state.step), real(parameters))
    trainer.train()
    assert seen == [2, 4, 6]
    assert make(name="none").ema is None


def test_with_all_weights_open_there_is_no_lora(make):
    trainer = make(lora_r=0)
    assert len(trainer.parameters) == len(list(trainer.policy.denoiser.parameters()))
    assert not trainer.policy.denoiser.training


def test_targets_that_match_nothing_are_refused(make):
    with pytest.raises(ValueError, match="no_such_module"):
        make(lora_target_modules=["no_such_module"])
