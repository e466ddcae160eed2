"""The solver's loop with experts that only note what they see: memory held, experts in turn, guidance."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from memento_model.codecs.codec import GreyLatents
from memento_model.conditioning import Memory, condition_shot
from memento_model.flow import MEMENTO, WAN_T2V, unipc
from memento_model.story.sampler import Sampling, ShotText, sample

GUIDANCE = {"high": 3.0, "low": 2.0}
TEXT = ShotText(
    prompt_td=torch.full((2, 4), 0.4),
    negative_td=torch.full((3, 4), 0.1),
    identity_td=torch.full((1, 4), 0.3),
    identity_negative_td=torch.full((1, 4), -0.2),
)


def conditionings():
    """One identity slot, three memory frames and two of the shot; each expert has a memory of its own."""
    grey = GreyLatents(torch.zeros(16, 2, 2, 2), torch.zeros(16, 1, 2, 2))
    return {
        expert: condition_shot(
            grey,
            memory=Memory(latents_cmhw=torch.full((16, 3, 2, 2), value), times=(0, 4, 8)),
            num_identities=1,
            start_frame=9,
        )
        for expert, value in (("high", 5.0), ("low", -5.0))
    }


class Notes:
    """Both experts: the velocity of a slot is the mean of the text that it reads."""

    def __init__(self):
        self.calls = []

    def __call__(self, expert):
        def run(latents, timestep, text, *, positions_bf, layout, identity_text, attention):
            self.calls.append((expert, timestep.tolist(), latents.clone(), attention))
            out = torch.empty_like(latents[:, :16])
            for one, rows in enumerate(text):
                out[one] = rows.mean()
                if identity_text:
                    out[one, :, layout.identity] = identity_text[0][one].mean()
            return out

        return run


def run(sampling, text=TEXT, on_step=None):
    made, notes = conditionings(), Notes()
    noise = torch.randn(1, 16, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    return sample(notes, made, text, noise, sampling, on_step), notes.calls, noise


@pytest.mark.parametrize(("schedule", "num_high"), [(MEMENTO, 15), (WAN_T2V, 26)])
def test_each_expert_has_its_steps_and_sees_its_own_memory(schedule, num_high):
    _, calls, _ = run(Sampling(schedule=schedule, guidance=dict.fromkeys(GUIDANCE, 1.0)))
    assert [call[0] for call in calls] == ["high"] * num_high + ["low"] * (40 - num_high)
    for expert, (timestep,), latents, attention in calls:
        assert (timestep >= 1000 * schedule.boundary) == (expert == "high")
        assert latents.shape[1] == 36
        assert (latents[:, 20:, 1:4] == (5 if expert == "high" else -5)).all()  # clean, in the condition
        assert attention == "split"


@pytest.mark.parametrize("reimpose", [True, False])
def test_memory_is_put_back_at_every_step_on_request(reimpose):
    sampling = Sampling(schedule=replace(MEMENTO, steps=6), guidance=GUIDANCE, reimpose=reimpose)
    _, calls, noise = run(sampling)
    held = []
    for expert, (timestep,), latents, _ in calls:
        level, clean = timestep / 1000, 5.0 if expert == "high" else -5.0
        wanted = (1 - level) * clean + level * noise[:, :, 1:4]
        held.append(torch.allclose(latents[:, :16, 1:4], wanted, atol=1e-5))
    assert all(held) if reimpose else not any(held)


@pytest.mark.parametrize("batched", [True, False])
def test_guidance_leads_every_slot_away_from_its_own_negative(batched):
    sampling = Sampling(schedule=replace(MEMENTO, steps=5), guidance=GUIDANCE, batch_guidance=batched)
    seen = []
    made, calls, noise = run(sampling, on_step=lambda *told: seen.append(told[:2]))
    assert len(calls) == (5 if batched else 10)
    assert seen == [(n, 5) for n in range(1, 6)]
    solver = unipc(5, MEMENTO.shift)
    target, identity = noise[:, :, 4:].clone(), noise[:, :, :1].clone()
    state = torch.cat((identity, target), dim=2)
    for timestep in solver.timesteps.tolist():
        scale = GUIDANCE["high" if timestep >= 900 else "low"]
        velocity = torch.full_like(state, 0.1 + scale * (0.4 - 0.1))
        velocity[:, :, :1] = -0.2 + scale * (0.3 - -0.2)
        state = solver.step(velocity, timestep, state, return_dict=False)[0]
    torch.testing.assert_close(made[:, :, [0, 4, 5]], state, atol=1e-5, rtol=0)


def test_without_guidance_nothing_negative_is_computed():
    sampling = Sampling(schedule=replace(MEMENTO, steps=3), guidance=dict.fromkeys(GUIDANCE, 1.0))
    spoilt = replace(TEXT, negative_td=torch.full((1, 4), float("nan")))
    made, calls, _ = run(sampling, spoilt)
    assert len(calls) == 3
    assert made.isfinite().all()


def test_experts_of_different_layouts_are_refused():
    made = conditionings()
    made["low"] = replace(made["low"], layout=replace(made["low"].layout, memory_frames=2))
    sampling = Sampling(schedule=MEMENTO, guidance=GUIDANCE)
    with pytest.raises(ValueError, match="one layout"):
        sample(Notes(), made, TEXT, torch.zeros(1, 16, 6, 2, 2), sampling)
