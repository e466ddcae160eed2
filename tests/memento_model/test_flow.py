"""The noise schedule against the numbers of the official scheduler, and what training draws from it."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file

from memento_model import flow
from tests.support import GOLDEN

RUNS = json.loads((GOLDEN / "model/scheduler/config.json").read_text())["runs"]


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "model/scheduler/unipc.safetensors")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["tag"])
def test_solver_equals_the_reference(golden, run):
    pytest.importorskip("diffusers")
    solver = flow.unipc(run["steps"], run["shift"])
    tag = run["tag"]
    assert torch.equal(solver.timesteps, golden[f"{tag}.timesteps"])
    assert (solver.sigmas - golden[f"{tag}.sigmas"]).abs().max() <= 2e-7
    state = golden["start"]
    assert torch.equal(state, golden[f"{tag}.states"][0])
    for index, timestep in enumerate(solver.timesteps):
        pushed = torch.einsum("cj,njfhw->ncfhw", golden["field_matrix"], state)
        bias = golden["field_bias"] * (timestep.item() / 1000)
        state = solver.step(pushed + bias.view(1, -1, 1, 1, 1), timestep, state).prev_sample
        assert (state - golden[f"{tag}.states"][index + 1]).abs().max() <= 1e-5, index


@pytest.mark.parametrize("steps", [1, 89, 300, 1000])
@pytest.mark.parametrize("shift", [5.0, 12.0])
def test_grids_with_equal_timesteps_are_solved_to_the_end(steps, shift):
    pytest.importorskip("diffusers")
    clean, noise = torch.randn(2, 1, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    solver = flow.unipc(steps, shift)
    state = flow.mix(clean, noise, float(solver.sigmas[0]))
    for timestep in solver.timesteps:
        state = solver.step(flow.velocity(clean, noise), timestep, state).prev_sample
    assert torch.allclose(state, clean, atol=1e-4)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["tag"])
def test_our_grid_is_the_solvers(golden, run):
    sigmas = flow.sigma_grid(run["steps"], run["shift"])
    timesteps = flow.timestep_grid(run["steps"], run["shift"])
    assert (sigmas - golden[f"{run['tag']}.sigmas"]).abs().max() <= 2e-7
    assert torch.equal(timesteps, golden[f"{run['tag']}.timesteps"])
    assert len(flow.expert_range(timesteps, "high", 0.9)) == run["timesteps_ge_900"]
    assert len(flow.expert_range(timesteps, "high", 0.875)) == run["timesteps_ge_875"]


def test_training_grid_and_its_split(golden):
    timesteps = flow.timestep_grid(1000, 5.0)
    assert torch.equal(timesteps, golden["train_grid_shift5.timesteps"])
    assert (flow.sigma_grid(1000, 5.0) - golden["train_grid_shift5.sigmas"]).abs().max() <= 2e-7
    assert flow.expert_range(timesteps, "high", 0.9) == range(0, 357)
    assert flow.expert_range(timesteps, "low", 0.9) == range(357, 1000)


@pytest.mark.parametrize(
    ("schedule", "num_high"), [(flow.MEMENTO, 15), (flow.WAN_T2V, 26), (flow.STORYMEM, None)]
)
def test_the_switch_of_experts(schedule, num_high):
    timesteps = flow.timestep_grid(schedule.steps, schedule.shift)
    experts = [flow.expert_at(timestep, schedule.boundary) for timestep in timesteps.tolist()]
    assert experts == sorted(experts)  # "high" first, then "low", and no way back
    if num_high is not None:
        assert experts.count("high") == num_high
    assert flow.expert_at(900, 0.9) == "high"
    assert flow.expert_at(899.9, 0.9) == "low"


def test_a_draw_stays_with_its_expert_and_its_noise():
    generator = torch.Generator().manual_seed(1)
    for expert, low, high in (("high", 900, 1000), ("low", 0, 900)):
        drawn = flow.draw_levels(20_000, expert, generator=generator)
        assert drawn.timestep_b.dtype == drawn.sigma_b.dtype == torch.float32
        assert drawn.timestep_b.min() >= low
        assert drawn.timestep_b.max() < high
        gap = 1000 * drawn.sigma_b - drawn.timestep_b
        assert gap.min() >= 0
        assert gap.max() < 1
        served = len(flow.expert_range(flow.timestep_grid(1000, 5.0), expert, 0.9))
        assert len(drawn.sigma_b.unique()) == served  # every level of the grid is reached
        counts = torch.unique(drawn.sigma_b, return_counts=True)[1].double() * served / 20_000
        assert ((counts - 1) ** 2).mean() * 20_000 / served < 1.3  # chi-square of a uniform draw is about 1


def test_legacy_rounding_keeps_few_levels_and_parts_timestep_from_noise():
    grid = flow.timestep_grid(1000, 5.0)
    worst = 0.0
    for expert, num in (("high", 26), ("low", 258)):
        index_b = torch.tensor(list(flow.expert_range(grid, expert, 0.9)))
        legacy = flow.levels_at(index_b, precision="bf16_legacy")
        assert len(legacy.sigma_b.unique()) == num
        worst = max(worst, (1000 * legacy.sigma_b - legacy.timestep_b).abs().max().item())
    assert 2.7 < worst < 2.8


def test_same_generator_same_draw():
    draws = [flow.draw_levels(8, "low", generator=torch.Generator().manual_seed(3)).sigma_b for _ in range(2)]
    assert torch.equal(*draws)


def test_mixing_and_velocity():
    clean, noise = torch.randn(2, 2, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma_b = torch.tensor([0.25, 1.0])
    noisy = flow.mix(clean, noise, sigma_b)
    assert torch.equal(noisy[1], noise[1])
    assert torch.equal(noisy[0], flow.mix(clean[0], noise[0], 0.25))
    # Going along the velocity by sigma ends at the clean latent.
    assert torch.allclose(noisy[0] - 0.25 * flow.velocity(clean, noise)[0], clean[0], atol=1e-6)
    assert torch.equal(flow.memory_at(clean, noise, 937), flow.mix(clean, noise, 0.937))


@pytest.mark.parametrize(("steps", "shift"), [(0, 5.0), (4, 0.0), (4, -1.0)])
def test_grids_that_cannot_be(steps, shift):
    with pytest.raises(ValueError, match="at least 1 step"):
        flow.sigma_grid(steps, shift)


def test_a_boundary_without_levels_is_refused():
    with pytest.raises(ValueError, match="no noise level"):
        flow.draw_levels(1, "high", flow.Schedule(shift=5.0, boundary=1.0))
