"""Flow matching as Wan2.2 trains and samples it: noise levels, experts, targets, and the UniPC solver.

A noise level is a pair: `sigma` in [0, 1], the weight of the noise that is really applied, and the timestep
the transformer sees, floor(1000 sigma). Both come from one grid: evenly spaced from 0.999 down to (but
without) 0, then shifted by s sigma / (1 + (s - 1) sigma). Sampling uses 40 levels of it, training 1000.

Axis letters: b sample; any axes may follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from memento_model.config import Expert

NUM_TRAIN_STEPS = 1000
GRID_START = 0.999


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How one family of weights is sampled.

    Attributes:
        shift: of the sigma grid.
        boundary: the high-noise expert serves timesteps >= 1000 * boundary.
        steps: of the solver.
    """

    shift: float
    boundary: float
    steps: int = 40


MEMENTO = Schedule(shift=5.0, boundary=0.9)
"""Wan2.2-I2V-A14B and Memento."""
STORYMEM = Schedule(shift=4.0, boundary=0.9)
"""StoryMem's setting of the same base."""
WAN_T2V = Schedule(shift=12.0, boundary=0.875)
"""Wan2.2-T2V-A14B, which makes the first shot."""


@dataclass(frozen=True)
class NoiseLevels:
    """Noise levels of a batch.

    Attributes:
        timestep_b: what the transformer sees, fp32.
        sigma_b: weight of the noise, fp32.
    """

    timestep_b: torch.Tensor
    sigma_b: torch.Tensor


def sigma_grid(steps: int, shift: float) -> torch.Tensor:
    """The `steps` shifted noise levels from high to low and a last 0: (steps + 1,), fp32.

    Raises:
        ValueError: for a grid that cannot be.
    """
    if steps < 1 or shift <= 0:
        raise ValueError(f"a schedule has at least 1 step and a positive shift, not {steps} and {shift}")
    return torch.from_numpy(np.append(_shifted(_base_grid(steps), shift), 0.0).astype(np.float32))


def timestep_grid(steps: int, shift: float) -> torch.Tensor:
    """Timesteps of the grid, floor(1000 sigma): (steps,), int64. Neighbours may be equal."""
    return torch.from_numpy(np.floor(_shifted(_base_grid(steps), shift) * NUM_TRAIN_STEPS).astype(np.int64))


def _base_grid(steps: int) -> np.ndarray:
    return np.linspace(GRID_START, 0.0, steps + 1)[:-1]


def _shifted(sigmas: np.ndarray, shift: float) -> np.ndarray:
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def expert_at(timestep: float, boundary: float) -> Expert:
    """The expert that serves a timestep."""
    return "high" if timestep >= boundary * NUM_TRAIN_STEPS else "low"


def expert_range(timesteps: torch.Tensor, expert: Expert, boundary: float) -> range:
    """Half-open range of the indices that an expert serves in a descending grid of timesteps."""
    num_high = int((timesteps >= boundary * NUM_TRAIN_STEPS).sum())
    return range(num_high) if expert == "high" else range(num_high, len(timesteps))


def draw_levels(
    num: int,
    expert: Expert,
    schedule: Schedule = MEMENTO,
    *,
    generator: torch.Generator | None = None,
    precision: Literal["fp32", "bf16_legacy"] = "fp32",
) -> NoiseLevels:
    """Noise levels for training: uniform over the entries of the 1000-step grid that the expert serves.

    Args:
        num: how many, one per sample.
        expert: whose part of the grid.
        schedule: shift and boundary.
        generator: CPU random state; the global one if none is given.
        precision: `fp32`: timestep and sigma belong together to the last digit; `bf16_legacy`: the official
            trainer's rounding, which leaves 26 (high) and 258 (low) distinct levels and shows the model
            timesteps up to 2.8 away from the noise that is applied.

    Raises:
        ValueError: if the expert serves no entry of the grid.
    """
    timesteps = timestep_grid(NUM_TRAIN_STEPS, schedule.shift)
    served = expert_range(timesteps, expert, schedule.boundary)
    if not served:
        raise ValueError(f"boundary {schedule.boundary} leaves the {expert}-noise expert no noise level")
    index_b = torch.randint(served.start, served.stop, (num,), generator=generator)
    return levels_at(index_b, schedule, precision=precision)


def levels_at(
    index_b: torch.Tensor, schedule: Schedule = MEMENTO, *, precision: Literal["fp32", "bf16_legacy"] = "fp32"
) -> NoiseLevels:
    """The levels at given indices of the 1000-step training grid; see `draw_levels`."""
    timesteps = timestep_grid(NUM_TRAIN_STEPS, schedule.shift)
    sigmas = sigma_grid(NUM_TRAIN_STEPS, schedule.shift)
    if precision == "fp32":
        return NoiseLevels(timesteps[index_b].float(), sigmas[index_b])
    rounded_grid = timesteps.to(torch.bfloat16)
    rounded_b = rounded_grid[index_b]
    # The official look-up: where several entries round to the same timestep, the second of them.
    matches = [(rounded_grid == timestep).nonzero().flatten() for timestep in rounded_b]
    looked_up_b = torch.stack([match[min(1, len(match) - 1)] for match in matches])
    return NoiseLevels(rounded_b.float(), sigmas[looked_up_b])


def mix(clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """The noisy latent (1 - sigma) clean + sigma noise.

    Args:
        clean: latents.
        noise: standard normal, same shape.
        sigma: a number, or one per sample (b,) for latents with a batch axis in front.
    """
    if isinstance(sigma, torch.Tensor) and sigma.ndim == 1:
        sigma = sigma.to(clean.device).view(-1, *[1] * (clean.ndim - 1))
    return (1 - sigma) * clean + sigma * noise


def velocity(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What the transformer predicts: noise - clean, the same at every noise level."""
    return noise - clean


def memory_at(clean: torch.Tensor, noise: torch.Tensor, timestep: float) -> torch.Tensor:
    """Memory latents as they are put back before a solver step: mixed by the floored timestep / 1000.

    That weight differs from the solver's sigma by less than 0.001; the official sampler does the same.
    """
    return mix(clean, noise, timestep / NUM_TRAIN_STEPS)


def unipc(steps: int, shift: float) -> Any:
    """The UniPC solver of diffusers (order 2, bh2, flow prediction), set to Wan's own noise levels.

    Left alone diffusers starts its grid at 1.0 and ends it at 1/1000, up to 4.1e-3 away.
    """
    from diffusers import UniPCMultistepScheduler

    solver: Any = UniPCMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_STEPS,
        solver_order=2,
        solver_type="bh2",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        final_sigmas_type="zero",
    )
    solver.set_timesteps(steps)
    solver.sigmas, solver.timesteps = sigma_grid(steps, shift), timestep_grid(steps, shift)
    # Fine grids begin with equal timesteps, of which diffusers would take the second for the first step.
    solver.set_begin_index(0)
    return solver
