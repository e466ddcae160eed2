"""Estimates before a run: exact where they can be, honest where not."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.training.budget import (
    MACHINES,
    activations,
    advice,
    budget,
    cache_bytes,
    count,
    fits,
    step_flops,
)
from memento_model.training.recipes import RECIPES
from tests.memento_model.in_memory import config, run_of


def test_counts_of_the_full_model():
    """Wan2.2-A14B with Memento: 14.3 G frozen, 823,587,840 trained, 46,800 tokens, 3.0 PFLOP forward."""
    counts = count(RECIPES["low_noise_480p"]())
    assert counts.frozen == 14_288_901_184
    assert counts.trained == 823_587_840
    assert counts.tokens == 46_800
    assert counts.flops == pytest.approx(3 * 1.84e15 + 2 * 1.12e15 + 3 * 0.05e15, rel=0.05)


def test_counts_are_those_of_the_model_that_is_built():
    for made in (config(), config(train_base=False)):
        run = run_of(made)
        counts = count(made)
        assert counts.trained == sum(p.numel() for p in run.optimiser.parameters.values())
        everything = sum(p.numel() for m in run.modules.values() for p in m.parameters())
        assert counts.frozen + counts.trained == everything
        sample = run.feed.prepared(0)[2]
        frames = run.forward(sample).conditioning.layout.num_frames
        assert frames * 2 <= counts.tokens


def test_budgets():
    made = RECIPES["low_noise_480p"]()
    one, eight = budget(made, 1), budget(made, 8)
    assert one.weights == pytest.approx(28.6e9 / 2**30, rel=0.02)
    assert one.masters == pytest.approx(823_587_840 * 4 / 2**30)
    assert one.optimiser == pytest.approx(2 * one.masters)
    assert eight.weights == pytest.approx(one.weights / 8)
    apart = replace(made, scale=replace(made.scale, shard=False))
    lean = budget(replace(apart, optim=replace(made.optim, states="8bit")), 1)
    assert lean.optimiser == pytest.approx(one.optimiser / 4)
    assert one.total == pytest.approx(sum(vars(one).values()))


def test_checkpointing_saves_most_of_the_activations():
    made = RECIPES["low_noise_480p"]()
    kept = replace(made, scale=replace(made.scale, checkpoint_activations=False))
    assert activations(made) < activations(kept) / 5


def test_advice_fits_where_it_says_so():
    made = RECIPES["low_noise_480p"]()
    answers = [(machine, *advice(made, machine)) for machine in MACHINES]
    (small, _, needs_small), (_, _, _), (big, way, needs) = answers
    assert not fits(needs_small, small)  # 14 G weights in bf16 alone are more than 24 GB
    assert needs_small.weights * 2**30 > small.gib * 1e9
    assert fits(needs, big)
    assert way.scale.shard
    debug = RECIPES["debug"]()
    for machine in MACHINES[:2]:
        way, needs = advice(debug, machine)
        assert fits(needs, machine)
        assert not way.scale.checkpoint_activations


def test_work_grows_with_the_sequence():
    made = RECIPES["low_noise_480p"]()
    joint = replace(made, objective=replace(made.objective, split_attention=False))
    assert step_flops(made) > step_flops(joint)  # two overlapping squares are more than one
    assert cache_bytes(made, 20_000) == pytest.approx(20 * cache_bytes(made, 1000))
