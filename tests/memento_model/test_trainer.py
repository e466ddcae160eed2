"""The loop: samples in order, the golden step through it, accumulation, noise levels, what is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.memento_model.golden import NAMES, golden, layout, relative, torch

pytest.importorskip("peft")

from memento_model.codecs.codec import GreyLatents
from memento_model.conditioning import Given
from memento_model.config import Compat
from memento_model.errors import DataError
from memento_model.flow import MEMENTO, NoiseLevels, expert_range, timestep_grid
from memento_model.nn.lora import inject_lora, trainable_tensors
from memento_model.training.config import ObjectiveConfig
from memento_model.training.objective import (
    NUM_LEVELS,
    Prepared,
    noise_level,
    prepare,
    training_step,
    with_own_frames,
)
from memento_model.training.trainer import Feed, fit, train_step
from tests.memento_model.in_memory import CPU, MODEL, InMemory, Quiet, config, run_of, sequences, weights


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_step_through_the_objective(name, monkeypatch):
    """Same losses and gradients as the official trainer, from a `Prepared` sample on."""
    numbers = golden(name)
    stored, case = numbers.train_step, numbers.config["train_step"]
    compat = Compat(no_identity_attention="blend", clamp_memory_before_target=False)
    model, query = numbers.transformer(), numbers.keyframe_query()
    inject_lora(model, numbers.model_config(), compat)
    tensors = trainable_tensors(model, query)
    with torch.no_grad():
        for key, parameter in tensors.items():
            parameter.copy_(numbers.trainable[key])
    query.train()
    parts = layout(case)
    start = 4 * 1000
    times = tuple(start + 4 * position for position in case["candidate_positions"])
    given = Given(latents_cfhw=stored["target_condition"], num_latent_frames=1)
    sample = Prepared(
        candidates_cfhw=stored["candidates"],
        times=times,
        target_cfhw=stored["target_latent"],
        identity_cfhw=stored["identity_latent"],
        given=given if case["first_frame_given"] else None,
        prompt_td=stored["text"],
        local_td=stored["local_text"],
        global_td=stored["global_text"],
        identity_td=(stored["identity_text"],),
        start_frame=start,
        grey=GreyLatents(video_cfhw=stored["target_condition"], frame_cfhw=stored["identity_condition"]),
        level=NoiseLevels(torch.tensor([float(case["timestep"])]), torch.tensor([case["sigma"]])),
        noise_seed=0,
    )
    monkeypatch.setattr(torch, "randn", lambda *_, **__: stored["noise"][None])
    objective = ObjectiveConfig(identity_weight=case["lambda"], split_attention=case["split_attention"])
    made = training_step(sample, model, query, objective, compat)
    assert made.selection.picked_bk[0].tolist() == case["picked"]
    assert made.conditioning.layout == parts
    assert made.conditioning.positions_bf[0].tolist() == case["temporal_positions"]
    assert (made.prediction_bcfhw[0] - stored["prediction"]).abs().max() <= 1e-4
    assert made.loss.total.item() == pytest.approx(case["loss"], abs=1e-5)
    assert made.loss.target.item() == pytest.approx(case["loss_target"], abs=1e-5)
    assert made.loss.identity.item() == pytest.approx(case["loss_identity"], abs=1e-5)
    made.loss.total.backward()
    for key, parameter in tensors.items():
        norm = case["gradient_l2_norms"][f"low_noise_model.base_model.model.{key}"]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-3), key
        if f"grad.{key}" in stored:
            assert relative(parameter.grad, stored[f"grad.{key}"]) <= 1e-3, key


@pytest.mark.parametrize("expert", ["high", "low"])
def test_noise_levels_follow_the_target_distribution(expert):
    """Uniform over the entries of the shifted grid that the expert serves: 357 high, 643 low."""
    run = run_of(config(expert=expert))
    grid = timestep_grid(NUM_LEVELS, MEMENTO.shift)
    served = grid[list(expert_range(grid, expert, MEMENTO.boundary))].float()
    assert len(served) == {"high": 357, "low": 643}[expert]
    drawn = torch.tensor(
        [float(noise_level(run.feed.drawn(i)[1].level, expert, Compat()).timestep_b[0]) for i in range(6000)]
    )
    assert set(drawn.tolist()) <= set(served.tolist())
    edges = torch.linspace(served.min(), served.max() + 1, 13)
    wanted = torch.histogram(served, edges).hist / len(served)
    found = torch.histogram(drawn, edges).hist / len(drawn)
    spread = (wanted * (1 - wanted) / len(drawn)).sqrt()
    assert ((found - wanted).abs() <= 4 * spread + 1e-9).all()


def test_fit_trains_saves_and_tells():
    run, quiet = run_of(config(steps=5)), Quiet()
    before = weights(run)
    fit(run, quiet, quiet)
    assert [done.step for done in quiet.done] == [1, 2, 3, 4, 5]
    assert quiet.saved == [2, 4, 5]
    assert (quiet.began, quiet.ended, quiet.finished) == (0, 5, True)
    assert run.count == 5
    changed = {name for name, value in weights(run).items() if not torch.equal(value, before[name])}
    assert any("keyframe_query" in name for name in changed)
    assert any(".lora_B" in name for name in changed)
    assert any("base_layer" in name for name in changed)


def test_without_training_the_base_only_adapters_and_queries_move():
    run = run_of(config(train_base=False))
    names = set(run.optimiser.parameters)
    assert all(".lora_" in name or name.startswith("keyframe_query.") for name in names)
    assert len(names) == MODEL.num_layers * 20 + 24


def test_accumulation_is_the_mean_over_its_samples():
    """Two samples in one step give the mean of the gradients of either."""
    run = run_of(config(scale=replace(config().scale, accumulate=2)))
    gradients = []
    for count in range(2):
        run.forward(run.feed.prepared(count)[2]).loss.total.backward()
        gradients.append(
            {n: p.grad.clone() for n, p in run.optimiser.parameters.items() if p.grad is not None}
        )
        for parameter in run.optimiser.parameters.values():
            parameter.grad = None
    seen = {}
    step = run.optimiser.step
    run.optimiser.step = lambda number: (
        seen.update({n: p.grad.clone() for n, p in run.optimiser.parameters.items()}),
        step(number),
    )[1]
    done = train_step(run)
    assert len(done.losses) == len(done.timesteps) == 2
    assert run.count == 2
    for name, gradient in seen.items():
        wanted = sum(g.get(name, torch.zeros_like(gradient)) for g in gradients) / 2
        torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


def test_an_epoch_deals_every_sample_once():
    run = run_of()
    samples = len(run.feed.samples)
    assert samples == 6
    dealt = [run.feed.drawn(count)[0].sample_id for count in range(2 * samples)]
    assert len(set(dealt[:samples])) == len(set(dealt[samples:])) == samples
    assert dealt[:samples] != dealt[samples:]


def test_the_loss_falls_on_a_set_that_fits_into_memory():
    made = config(steps=60, optim=replace(config().optim, lr=1e-2, warmup_steps=0))
    run, quiet = run_of(made, data=sequences(1, 2)), Quiet()
    fit(run, quiet, quiet)
    losses = [done.losses[0][0].item() for done in quiet.done]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_baseline_has_no_queries_and_draws_its_memory():
    objective = ObjectiveConfig(
        learnable_query=False, identity_probability=0.0, split_attention=False, bank_frames=3, last_frames=3
    )
    run = run_of(config(objective=objective))
    assert run.query is None
    count = next(n for n in range(20) if len(run.feed.drawn(n)[1].candidates) > 3)
    sample = run.feed.prepared(count)[2]
    one, same = run.forward(sample), run.forward(sample)
    assert one.selection is None
    assert one.conditioning.layout.memory_frames == 3
    assert torch.equal(one.conditioning.memory_bcmhw, same.conditioning.memory_bcmhw)


def test_self_forcing_takes_the_last_shot_from_the_model():
    objective = replace(config().objective, self_forcing_probability=1.0, skip_prior_probability=0.0)
    run = run_of(config(objective=objective))
    count = next(n for n in range(20) if len(run.feed.drawn(n)[1].bank) == 3)
    _, drawn, sample = run.feed.prepared(count)
    assert drawn.self_forced
    assert sample.last_td is not None
    made = with_own_frames(sample, run.transformer)
    assert torch.equal(made.candidates_cfhw[:, :3], sample.candidates_cfhw[:, :3])
    assert not torch.equal(made.candidates_cfhw[:, 3:], sample.candidates_cfhw[:, 3:])
    assert not made.candidates_cfhw.requires_grad
    run.forward(sample).loss.total.backward()
    plain = prepare(
        *run.feed.drawn(count)[:1], replace(drawn, self_forced=False), InMemory(), "low", Compat()
    )
    assert plain.last_td is None


def test_nothing_to_train_on_is_one_line():
    with pytest.raises(DataError, match="nothing to train on"):
        Feed(sequences(1, 1), InMemory(), config(), CPU.device)
