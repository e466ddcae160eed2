"""One shot from noise to latents: the solver's loop over both experts, with memory held in place.

Axes: b batch, c channels, f latent frames, h and w latent rows and columns, t rows of text, d their width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from memento_model.conditioning import Conditioning
from memento_model.config import Expert, Layout
from memento_model.flow import Schedule, expert_at, unipc


@dataclass(frozen=True, kw_only=True)
class ShotText:
    """Un-padded rows of the text encoder for one shot.

    Attributes:
        prompt_td, negative_td: of the shot, with and without guidance.
        identity_td, identity_negative_td: what the reconstruction slot reads; None without one.
    """

    prompt_td: Tensor
    negative_td: Tensor
    identity_td: Tensor | None = None
    identity_negative_td: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a shot is sampled.

    Attributes:
        schedule: noise levels, steps and the experts' boundary.
        guidance: classifier-free guidance scale of either expert; 1 leaves the negative branch out.
        attention: `split` (Memento) or `joint`.
        reimpose: put the memory back at every step (Memento); StoryMem lets it be denoised along.
        batch_guidance: run both branches as one batch: faster on small models, twice the activations.
    """

    schedule: Schedule
    guidance: Mapping[Expert, float]
    attention: Literal["split", "joint"] = "split"
    reimpose: bool = True
    batch_guidance: bool = False


class Transformer(Protocol):
    """What the loop asks of an expert; `MementoTransformer` is one."""

    def __call__(
        self,
        latents_bcfhw: Tensor,
        timestep_b: Tensor,
        text_bld: list[Tensor],
        *,
        positions_bf: Tensor,
        layout: Layout,
        identity_text: list[list[Tensor]] | None,
        attention: Literal["split", "joint"],
    ) -> Tensor:
        """Velocity of every frame."""


Experts = Callable[[Expert], Transformer]
"""Brings an expert to where it computes and returns it."""
Step = Callable[[int, int, Tensor], None]
"""Called after a step with its number from 1, the number of steps, and the clean shot as predicted now."""


@torch.inference_mode()
def sample(
    experts: Experts,
    conditionings: Mapping[Expert, Conditioning],
    text: ShotText,
    noise_bcfhw: Tensor,
    sampling: Sampling,
    on_step: Step | None = None,
) -> Tensor:
    """Denoise [identity | memory | target] with UniPC.

    Args:
        experts: brings the expert of a noise level.
        conditionings: what either expert sees; of one layout, with memories of their own.
        text: of the shot.
        noise_bcfhw: fp32 standard normal of the whole layout, 16 channels; the memory is put back with it.
        sampling: schedule and guidance.
        on_step: watches.

    Returns:
        Tensor [b, 16, f, h, w] of the whole layout.

    Raises:
        ValueError: the experts' layouts differ, or the noise does not fit them.
    """
    layout = conditionings["high"].layout
    if conditionings["low"].layout != layout or noise_bcfhw.shape[2] != layout.num_frames:
        raise ValueError("both experts and the noise need one layout; cut the larger memory to the smaller")
    schedule = sampling.schedule
    solver = unipc(schedule.steps, schedule.shift)
    state_bcfhw = noise_bcfhw.float().clone()
    for number, timestep in enumerate(solver.timesteps.tolist(), start=1):
        expert = expert_at(timestep, schedule.boundary)
        conditioning = conditionings[expert]
        if sampling.reimpose and layout.memory_frames:
            state_bcfhw = conditioning.reimpose(state_bcfhw, noise_bcfhw, timestep)
        velocity = _guided(experts(expert), conditioning, text, state_bcfhw, timestep, sampling)
        if on_step is not None:
            sigma = float(solver.sigmas[number - 1])
            on_step(number, schedule.steps, (state_bcfhw - sigma * velocity)[:, :, layout.target])
        state_bcfhw = solver.step(velocity, timestep, state_bcfhw, return_dict=False)[0]
    return state_bcfhw


def _guided(
    expert: Transformer,
    conditioning: Conditioning,
    text: ShotText,
    state_bcfhw: Tensor,
    timestep: float,
    sampling: Sampling,
) -> Tensor:
    """Velocity with guidance over the whole sequence, fp32."""
    scale = sampling.guidance[expert_at(timestep, sampling.schedule.boundary)]
    branches = [(text.prompt_td, text.identity_td)]
    if scale != 1:
        branches.append((text.negative_td, text.identity_negative_td))
    batches = [branches] if sampling.batch_guidance else [[branch] for branch in branches]
    latents = conditioning.model_input(state_bcfhw)
    out: list[Tensor] = []
    for batch in batches:
        num, per = len(batch), latents.shape[0]
        identity = [rows for _, rows in batch if rows is not None for _ in range(per)]
        made = expert(
            latents.repeat(num, 1, 1, 1, 1),
            torch.full((num * per,), timestep, device=latents.device),
            [rows for rows, _ in batch for _ in range(per)],
            positions_bf=conditioning.positions_bf.repeat(num, 1),
            layout=conditioning.layout,
            identity_text=[identity] if identity else None,
            attention=sampling.attention,
        )
        out += made.float().chunk(num)
    if scale == 1:
        return out[0]
    with_prompt, without = out
    return without + scale * (with_prompt - without)
