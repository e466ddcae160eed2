"""AdamW on fp32 weights: schedule, clipping, steps left out, the average, and what bf16 weights lose."""

from __future__ import annotations

import math
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from curation.optional import MissingExtra
from memento_model.training.config import OptimConfig
from memento_model.training.optim import Optimiser, lr_at, query_lr_at


def weight(size=64, seed=0, scale=0.014):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.Parameter((torch.rand(size, generator=generator) * 2 - 1) * scale)


def made(parameter, **more):
    return Optimiser({"w": parameter}, OptimConfig(**{"warmup_steps": 0, "schedule": "constant", **more}), 10)


def test_bf16_weights_stall_and_ours_do_not():
    """At lr 1e-5 most bf16 weights around 0.01 do not move on a full-size Adam step."""
    start, size = weight(20_000).detach(), 20_000
    generator = torch.Generator().manual_seed(1)
    signs = torch.randn(size, generator=generator).sign()

    rounded = torch.nn.Parameter(start.to(torch.bfloat16))
    stalling = torch.optim.AdamW([rounded], lr=1e-5, weight_decay=0.0)
    rounded.grad = signs.to(torch.bfloat16)
    stalling.step()
    stuck = (rounded.detach().float() == start.to(torch.bfloat16).float()).float().mean().item()
    assert 0.6 < stuck < 0.85

    ours = torch.nn.Parameter(start.clone())
    optimiser = made(ours, lr=1e-5, weight_decay=0.0, max_grad_norm=1e9)
    ours.grad = signs.clone()
    optimiser.step(0)
    moved = (ours.detach() - start).abs()
    assert (moved > 0).all()
    assert moved.mean().item() == pytest.approx(1e-5, rel=0.01)


def test_bf16_movement_over_many_steps_is_a_fraction():
    start = weight(4_000).detach()
    lost, kept = torch.nn.Parameter(start.to(torch.bfloat16)), torch.nn.Parameter(start.clone())
    stalling, ours = (
        torch.optim.AdamW([lost], lr=1e-5, weight_decay=0.0),
        made(kept, lr=1e-5, weight_decay=0.0),
    )
    for step in range(60):
        generator = torch.Generator().manual_seed(step)
        grad = 1 + 0.5 * torch.randn(4_000, generator=generator)
        lost.grad, kept.grad = grad.to(torch.bfloat16), grad
        stalling.step()
        ours.step(step)
    ratio = (lost.detach().float() - start.to(torch.bfloat16).float()).abs().mean() / (
        kept.detach() - start
    ).abs().mean()
    assert ratio < 0.5


def test_equals_torchs_adamw_and_clips():
    ours, theirs = weight(), weight()
    optimiser = made(ours, lr=1e-3, max_grad_norm=0.5)
    plain = torch.optim.AdamW([theirs], lr=1e-3, weight_decay=0.01)
    for step in range(3):
        grad = torch.randn(64, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = grad.clone(), grad * min(1.0, 0.5 / grad.norm().item())
        norm, lr = optimiser.step(step)
        plain.step()
        assert norm.item() == pytest.approx(grad.norm().item(), rel=1e-5)
        assert lr == 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-4)


def test_a_step_with_a_bad_gradient_changes_nothing_and_is_counted():
    parameter = weight()
    optimiser = made(parameter, ema_decay=0.5)
    parameter.grad = torch.ones(64)
    optimiser.step(0)
    before, state = parameter.detach().clone(), optimiser.adam.state[parameter]["exp_avg"].clone()
    parameter.grad = torch.ones(64).index_fill(0, torch.tensor([3]), math.nan)
    optimiser.step(1)
    assert torch.equal(parameter, before)
    assert torch.equal(optimiser.adam.state[parameter]["exp_avg"], state)
    assert optimiser.adam.state[parameter]["step"].item() == 1
    assert optimiser.skipped.item() == 1
    assert parameter.grad is None
    parameter.grad = torch.ones(64)
    optimiser.step(2)
    assert not torch.equal(parameter, before)
    assert optimiser.skipped.item() == 1


def test_schedule():
    config = OptimConfig(lr=1.0, warmup_steps=4, schedule="cosine", min_lr_ratio=0.1)
    rates = [lr_at(step, config, 20) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert lr_at(25, config, 20) == pytest.approx(0.1)
    constant = OptimConfig(lr=1.0, warmup_steps=2, schedule="constant")
    assert [lr_at(step, constant, 9) for step in (0, 1, 2, 8)] == [0.5, 1.0, 1.0, 1.0]


def test_average_follows():
    parameter = weight()
    optimiser = made(parameter, lr=0.1, ema_decay=0.999)
    start = parameter.detach().clone()
    seen = start.clone()
    for step in range(5):
        parameter.grad = torch.ones(64)
        optimiser.step(step)
        decay = (1 + step) / (10 + step)
        seen = decay * seen + (1 - decay) * parameter.detach()
    torch.testing.assert_close(optimiser.average["w"], seen)


def test_what_cannot_be_trained_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="nothing is trainable"):
        Optimiser({}, OptimConfig(), 10)
    half = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"w is torch\.bfloat16; trainable weights must be float32"):
        made(half)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match="bitsandbytes"):
        made(weight(), states="8bit")


def test_states_of_8_bits_follow_those_of_32():
    """The real bitsandbytes: nearly the same way down, a quarter of the memory, no step on bad gradients."""
    pytest.importorskip("bitsandbytes")
    size = 8192  # smaller tensors keep fp32 states
    goal = weight(size, seed=3, scale=1.0).detach()
    losses = {}
    for states in ("fp32", "8bit"):
        parameter = weight(size)
        optimiser = made(parameter, lr=0.05, weight_decay=0.0, states=states)
        for step in range(60):
            loss = (parameter - goal).square().mean()
            loss.backward()
            optimiser.step(step)
        losses[states] = loss.item()
    assert losses["fp32"] < 0.02
    assert losses["8bit"] == pytest.approx(losses["fp32"], abs=0.02)
    kept = optimiser.adam.state[parameter]
    assert kept["state1"].dtype == kept["state2"].dtype == torch.uint8
    before = parameter.detach().clone()
    parameter.grad = torch.full((size,), torch.nan)
    optimiser.step(60)
    assert torch.equal(parameter, before)
    assert optimiser.skipped == 1


def test_queries_have_their_own_rate():
    ours, queries = weight(), weight(seed=1)
    starts = ours.detach().clone(), queries.detach().clone()
    config = OptimConfig(lr=1e-2, query_lr_ratio=0.1, warmup_steps=0, weight_decay=0.0, schedule="constant")
    optimiser = Optimiser({"transformer.w": ours, "keyframe_query.w": queries}, config, 10)
    ours.grad, queries.grad = torch.ones(64), torch.ones(64)
    optimiser.step(0)
    moved = [
        (p.detach() - start).abs().mean().item() for p, start in zip((ours, queries), starts, strict=True)
    ]
    assert moved == pytest.approx([1e-2, 1e-3], rel=1e-3)


def test_queries_can_end_before_the_run():
    """A schedule of their own length, then nothing; without one they follow the others to the end."""
    config = OptimConfig(lr=1.0, query_lr_ratio=0.5, warmup_steps=2, query_steps=6)
    made = [query_lr_at(step, config, 10) for step in range(10)]
    assert made[:2] == [0.25, 0.5]
    assert made[2] == pytest.approx(0.5)
    assert made[5:] == pytest.approx([0.0] * 5)
    assert 0 < made[4] < made[3] < made[2]
    whole = OptimConfig(lr=1.0, query_lr_ratio=0.5, warmup_steps=2)
    assert [query_lr_at(s, whole, 10) for s in range(10)] == [0.5 * lr_at(s, whole, 10) for s in range(10)]
