"""What a shot is generated from: sequence layout, mask, clean condition and true times, made in one place.

Training and generation both call `condition_shot`, so that the same shot gives the same mask, condition and
positions in both. The tasks differ only in what is handed in:

    T2V     a prompt alone                         16-channel transformer, no condition
    TM2V    memory                                 a shot after a cut
    TMI2V   memory and the shot's first frame      a shot that continues the one before
    MM2V    memory and the shot's first 5 frames   a continued motion
    MR2V    memory made of reference images        characters before the first shot

An identity slot in front of any of them is denoised into the picture of a subject (reconstruction).

Axes: b batch, c channels, f latent frames, m memory frames, h and w latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memento_model.codecs.codec import STRIDE, Codec, GreyLatents
from memento_model.config import Compat, FrameGrid, Layout
from memento_model.flow import memory_at
from memento_model.nn.rope import MAX_POSITION, MIN_POSITION

MASK_CHANNELS = 4
IDENTITY_POSITION = MIN_POSITION
"""Where identity slots stand in time: as far from everything as the table goes."""
REFERENCE_SPACING = 5 * STRIDE[0]
"""Pixel frames between reference images before the story (StoryMem's offset of 5 latent frames)."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Remembered frames, each encoded alone.

    Attributes:
        latents_cmhw: clean.
        times: of each frame, pixel frames at 16 fps since the story began; negative before it.
    """

    latents_cmhw: Tensor
    times: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse frames without a time."""
        if self.latents_cmhw.ndim != 4 or self.latents_cmhw.shape[1] != len(self.times):
            raise ValueError(
                f"{len(self.times)} times for memory latents {tuple(self.latents_cmhw.shape)} of (c, m, h, w)"
            )

    def sorted(self) -> Memory:
        """The same frames in order of time; results do not depend on it."""
        order = sorted(range(len(self.times)), key=lambda i: self.times[i])
        return Memory(latents_cmhw=self.latents_cmhw[:, order], times=tuple(self.times[i] for i in order))


@dataclass(frozen=True, kw_only=True)
class Given:
    """The first pixel frames of a shot, known before it is made.

    Attributes:
        latents_cfhw: of the whole shot with grey after the known frames.
        num_latent_frames: how many latent frames they fill.
    """

    latents_cfhw: Tensor
    num_latent_frames: int


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Everything but noise and text.

    Attributes:
        layout: frames of [identity | memory | target].
        condition_bcfhw: 4 mask and 16 condition channels; None in the T2V form.
        positions_bf: temporal positions, int64.
        memory_bcmhw: clean memory latents; m may be 0.
    """

    layout: Layout
    condition_bcfhw: Tensor | None
    positions_bf: Tensor
    memory_bcmhw: Tensor

    def model_input(self, noisy_bcfhw: Tensor) -> Tensor:
        """What the transformer takes: noisy latents, and behind them mask and condition where it has them."""
        if self.condition_bcfhw is None:
            return noisy_bcfhw
        return torch.cat((noisy_bcfhw, self.condition_bcfhw.to(noisy_bcfhw)), dim=1)

    def reimpose(self, noisy_bcfhw: Tensor, noise_bcfhw: Tensor, timestep: float) -> Tensor:
        """Put the memory back at a noise level, mixed with the noise the sampling began with."""
        memory = self.layout.memory
        out = noisy_bcfhw.clone()
        out[:, :, memory] = memory_at(self.memory_bcmhw.to(out), noise_bcfhw[:, :, memory], timestep)
        return out

    def clean(self, identity_bcfhw: Tensor | None, target_bcfhw: Tensor) -> Tensor:
        """The clean sequence of a training sample: [identity, memory, target] on the frame axis."""
        parts = [self.memory_bcmhw, target_bcfhw]
        return torch.cat(parts if identity_bcfhw is None else [identity_bcfhw, *parts], dim=2)


def condition_shot(
    grey: GreyLatents,
    *,
    memory: Memory | None = None,
    given: Given | None = None,
    start_frame: int = 0,
    num_identities: int = 0,
    compat: Compat | None = None,
    has_condition: bool = True,
) -> Conditioning:
    """Lay out one shot.

    Args:
        grey: the codec's constants for the shot's size; they stand where nothing is given.
        memory: frames of earlier shots; gradients flow through its latents.
        given: the shot's own first frames.
        start_frame: pixel frames at 16 fps from the story's beginning to the shot's.
        num_identities: reconstruction slots.
        compat: how memory positions are made.
        has_condition: the I2V form; False for the T2V form, which takes a prompt alone.

    Returns:
        A batch of one.

    Raises:
        ValueError: something is given that the T2V form cannot take, or sizes differ.
    """
    compat = compat or Compat()
    if not has_condition and (memory is not None or given is not None or num_identities):
        raise ValueError("the T2V form takes a prompt alone: no memory, no given frames, no identity")
    channels, frames, height, width = grey.video_cfhw.shape
    if memory is None:
        memory = Memory(latents_cmhw=grey.video_cfhw.new_zeros(channels, 0, height, width), times=())
    _check_size("memory", memory.latents_cmhw, (channels, len(memory.times), height, width))
    layout = Layout(identity_frames=num_identities, memory_frames=len(memory.times), target_frames=frames)
    positions = [
        *[IDENTITY_POSITION] * num_identities,
        *memory_positions(memory.times, start_frame, compat),
        *range(frames),
    ]
    return Conditioning(
        layout=layout,
        condition_bcfhw=_condition(grey, layout, memory, given)[None] if has_condition else None,
        positions_bf=torch.tensor([positions], device=grey.video_cfhw.device),
        memory_bcmhw=memory.latents_cmhw[None],
    )


def _condition(grey: GreyLatents, layout: Layout, memory: Memory, given: Given | None) -> Tensor:
    """Mask and condition of one sample: 1 on memory and given latent frames, in all four channels of each.

    Only whole latent frames are ever given, so a latent frame's four pixel frames share one flag.
    """
    shot_cfhw, num_given = grey.video_cfhw, 0
    if given is not None:
        _check_size("given frames", given.latents_cfhw, tuple(shot_cfhw.shape))
        shot_cfhw, num_given = given.latents_cfhw, given.num_latent_frames
    clean = torch.cat(
        (
            grey.frame_cfhw.expand(-1, layout.identity_frames, -1, -1),
            memory.latents_cmhw.to(shot_cfhw),
            shot_cfhw,
        ),
        dim=1,
    )
    mask = clean.new_zeros(MASK_CHANNELS, *clean.shape[1:])
    mask[:, layout.memory] = 1
    mask[:, layout.target.start : layout.target.start + num_given] = 1
    return torch.cat((mask, clean))


def _check_size(what: str, latents: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(latents.shape) != wanted:
        raise ValueError(f"{what}: latents {tuple(latents.shape)} where the shot's size asks for {wanted}")


def stack(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Samples of one layout as a batch.

    Raises:
        ValueError: the layouts differ.
    """
    first = conditionings[0]
    if any(c.layout != first.layout for c in conditionings):
        raise ValueError("samples of a batch need equal numbers of identity, memory and target frames")
    with_condition = [c.condition_bcfhw for c in conditionings if c.condition_bcfhw is not None]
    return Conditioning(
        layout=first.layout,
        condition_bcfhw=torch.cat(with_condition) if with_condition else None,
        positions_bf=torch.cat([c.positions_bf for c in conditionings]),
        memory_bcmhw=torch.cat([c.memory_bcmhw for c in conditionings]),
    )


def given_frames(codec: Codec, frames_cthw: Tensor, grid: FrameGrid) -> Given:
    """Encode a shot's known first frames with grey behind them.

    Args:
        codec: of the model.
        frames_cthw: [3, t, h, w] in [-1, 1]; t = 1 (TMI2V) or 4n+1 (MM2V: 5).
        grid: of the shot.

    Raises:
        ValueError: frames that do not fill whole latent frames, or of another size.
    """
    num, size = frames_cthw.shape[1], tuple(frames_cthw.shape[2:])
    if num % STRIDE[0] != 1 or num > grid.num_frames:
        raise ValueError(f"{num} given frames; a shot takes 1, 5, 9 ... up to {grid.num_frames}")
    if size != (grid.height, grid.width):
        raise ValueError(f"given frames are {size[0]}x{size[1]}, the shot is {grid.height}x{grid.width}")
    video = frames_cthw.new_zeros(3, grid.num_frames, *size)
    video[:, :num] = frames_cthw
    return Given(latents_cfhw=codec.encode(video[None])[0], num_latent_frames=1 + (num - 1) // STRIDE[0])


def query_positions(times: Sequence[int], start_frame: int) -> list[int]:
    """Positions of candidate frames for the queries: true time in latent frames, clamped to the table.

    Args:
        times: pixel frames at 16 fps since the story began.
        start_frame: of the coming shot, in the same unit.
    """
    origin = start_frame // STRIDE[0]
    return [min(max(time // STRIDE[0] - origin, MIN_POSITION), MAX_POSITION) for time in times]


def memory_positions(times: Sequence[int], start_frame: int, compat: Compat) -> list[int]:
    """Positions of memory frames in the transformer.

    True time puts a frame of the last moment before a shot onto the shot's own first position; by default it
    is lowered to -1. StoryMem's scheme ignores time: -S m, ..., -S in the order given.
    """
    if compat.memory_positions == "storymem":
        return [-compat.storymem_offset * k for k in range(len(times), 0, -1)]
    positions = query_positions(times, start_frame)
    return [min(p, -1) for p in positions] if compat.clamp_memory_before_target else positions


def reference_memory(codec: Codec, images_nchw: Tensor) -> Memory:
    """Reference images as memory before the story begins (MR2V), evenly spaced in time.

    Args:
        codec: of the model.
        images_nchw: in [-1, 1], of the shot's size.
    """
    latents_nchw = codec.encode_images(images_nchw)
    num = len(latents_nchw)
    times = tuple(-REFERENCE_SPACING * k for k in range(num, 0, -1))
    return Memory(latents_cmhw=latents_nchw.transpose(0, 1), times=times)


def spaced_frames(num_frames: int, count: int, compat: Compat) -> list[int]:
    """Indices of `count` evenly spaced frames of a shot, first and last included.

    The official trainer rounds down, its sampler to the nearest; 8 of 81: 0 11 22 34 45 57 68 80 or
    0 11 23 34 46 57 69 80.
    """
    points = torch.linspace(0, num_frames - 1, count, dtype=torch.float64)
    whole = points.floor() if compat.frame_sampling == "floor" else points.round()
    return [int(i) for i in whole]
