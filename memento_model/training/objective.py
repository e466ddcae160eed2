"""One training sample from cached latents to its loss: memory elected, everything noised, velocity compared.

Latents and text come from the cache; neither codec nor text encoder is touched here.

Axes: b batch, c channels, f latent frames, h and w latent rows and columns, t rows of text, d their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from memento_model.codecs.codec import GreyLatents
from memento_model.conditioning import Conditioning, Given, Memory, condition_shot, query_positions
from memento_model.config import Compat, Expert
from memento_model.flow import MEMENTO, NoiseLevels, Schedule, expert_range, levels_at, mix, timestep_grid
from memento_model.nn.attention import AttentionForm
from memento_model.nn.keyframe_query import KeyframeQuery, Selection
from memento_model.nn.losses import VelocityLoss, velocity_loss
from memento_model.nn.transformer import MementoTransformer
from memento_model.training.config import ObjectiveConfig
from memento_model.training.samples import Draw, Frame, Sample, TrainSequence

NUM_LEVELS = 1000


class Latents(Protocol):
    """What a sample is read from; `memento_model.training.latent_cache` keeps it on disk."""

    def shot(self, sequence: TrainSequence, clip: int) -> Tensor:
        """Latent of a clip's first frames, the length of a shot: [c, f, h, w]."""

    def given_first(self, sequence: TrainSequence, clip: int) -> Given:
        """The clip's first frame with grey behind it, encoded as a shot."""

    def frame(self, sequence: TrainSequence, frame: Frame) -> Tensor:
        """Latent of one frame encoded alone: [c, h, w]."""

    def grey(self) -> GreyLatents:
        """The codec's constants for a shot."""

    def text(self, prompt: str) -> Tensor:
        """Un-padded rows of the text encoder [t, d]; the empty prompt too."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sample on the device, before anything is elected or noised.

    Attributes:
        candidates_cfhw, times: of the frames that can be remembered.
        target_cfhw: clean latent of the shot.
        identity_cfhw: clean latents of the reconstruction slots; f may be 0.
        given: the shot's first frame, if it is given.
        prompt_td, local_td, global_td: text of the transformer and of either group of queries.
        identity_td: text of each slot.
        start_frame: of the shot.
        last: how many of the candidates, at the end, come from the clip before the shot.
        last_td: that clip's text; None unless its frames are to be made by the model itself.
        grey: constants.
        level: what the model sees and what is applied.
        noise_seed: of the noise.
    """

    candidates_cfhw: Tensor
    times: tuple[int, ...]
    target_cfhw: Tensor
    identity_cfhw: Tensor
    given: Given | None
    prompt_td: Tensor
    local_td: Tensor
    global_td: Tensor
    identity_td: tuple[Tensor, ...]
    start_frame: int
    grey: GreyLatents
    level: NoiseLevels
    noise_seed: int
    last: int = 0
    last_td: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a forward pass gives.

    Attributes:
        loss: total and parts.
        selection: of the queries; None without them.
        conditioning: the sequence's layout and condition.
        prediction_bcfhw: velocity.
        clean_bcfhw, noise_bcfhw: what it is compared with.
    """

    loss: VelocityLoss
    selection: Selection | None
    conditioning: Conditioning
    prediction_bcfhw: Tensor
    clean_bcfhw: Tensor
    noise_bcfhw: Tensor


def noise_level(number: float, expert: Expert, compat: Compat, schedule: Schedule = MEMENTO) -> NoiseLevels:
    """The level that a uniform number in [0, 1) chooses among those the expert serves; a batch of one."""
    served = expert_range(timestep_grid(NUM_LEVELS, schedule.shift), expert, schedule.boundary)
    index = served.start + int(number * len(served))
    return levels_at(torch.tensor([index]), schedule, precision=compat.timestep)


def prepare(
    sample: Sample,
    draw: Draw,
    latents: Latents,
    expert: Expert,
    compat: Compat,
    device: torch.device | str = "cpu",
) -> Prepared:
    """Read what a draw asks for.

    Args:
        sample: what to train on.
        draw: what was drawn for it.
        latents: cached.
        expert: decides the noise level.
        compat: rounding of timesteps.
        device: where to.
    """
    sequence, clip = sample.sequence, sample.sequence.clips[sample.target]
    frames = [latents.frame(sequence, f) for f in draw.candidates]
    target = latents.shot(sequence, sample.target)
    slots = [latents.frame(sequence, Frame(t.clip, t.frame)) for t in draw.identities]
    given = latents.given_first(sequence, sample.target) if draw.first_frame else None
    if given is not None:
        given = Given(latents_cfhw=given.latents_cfhw.to(device), num_latent_frames=given.num_latent_frames)
    grey = latents.grey()

    def text(prompt: str, *, dropped: bool) -> Tensor:
        return latents.text("" if dropped else prompt).to(device)

    return Prepared(
        candidates_cfhw=torch.stack(frames, dim=1).to(device),
        times=tuple(sequence.clips[f.clip].start_frame + f.frame for f in draw.candidates),
        target_cfhw=target.to(device),
        identity_cfhw=(torch.stack(slots, dim=1) if slots else target[:, :0]).to(device),
        given=given,
        prompt_td=text(clip.caption, dropped=draw.drop_prompt),
        local_td=text(clip.caption, dropped=draw.drop_local),
        global_td=text(clip.global_caption, dropped=draw.drop_global),
        identity_td=tuple(text(t.caption, dropped=draw.drop_identity) for t in draw.identities),
        start_frame=clip.start_frame,
        grey=GreyLatents(*(x.to(device) for x in grey)),
        level=noise_level(draw.level, expert, compat),
        noise_seed=draw.noise_seed,
        last=len(draw.last),
        last_td=text(sequence.clips[sample.target - 1].caption, dropped=False) if draw.self_forced else None,
    )


def training_step(
    sample: Prepared,
    transformer: MementoTransformer,
    query: KeyframeQuery | None,
    objective: ObjectiveConfig,
    compat: Compat,
) -> Step:
    """Forward pass and loss of one sample (reference trainer: one step; golden `train_step`).

    Args:
        sample: as `prepare` made it.
        transformer: one expert.
        query: its queries; None (the ablation's baseline) remembers a random subset of the candidates.
        objective: weights of the loss, form of attention.
        compat: how memory positions are made.
    """
    attention: AttentionForm = "split" if objective.split_attention else "joint"
    if sample.last_td is not None:
        sample = with_own_frames(sample, transformer, attention)
    memory, selection = elect(
        sample, transformer, query, bank_size(objective, query), drawn=objective.drawn_picks
    )
    conditioning = condition_shot(
        sample.grey,
        memory=memory,
        given=sample.given,
        start_frame=sample.start_frame,
        num_identities=sample.identity_cfhw.shape[1],
        compat=compat,
    )
    identity = sample.identity_cfhw[None] if sample.identity_cfhw.shape[1] else None
    clean = conditioning.clean(identity, sample.target_cfhw[None])
    generator = torch.Generator().manual_seed(sample.noise_seed)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    noisy = mix(clean, noise, float(sample.level.sigma_b[0]))
    prediction = transformer(
        conditioning.model_input(noisy),
        sample.level.timestep_b.to(clean.device),
        [sample.prompt_td],
        positions_bf=conditioning.positions_bf,
        layout=conditioning.layout,
        identity_text=[[rows] for rows in sample.identity_td] or None,
        attention=attention,
    )
    loss = velocity_loss(
        prediction,
        clean,
        noise,
        conditioning.layout,
        identity_weight=objective.identity_weight,
        memory_weight=objective.memory_weight,
    )
    return Step(
        loss=loss,
        selection=selection,
        conditioning=conditioning,
        prediction_bcfhw=prediction,
        clean_bcfhw=clean,
        noise_bcfhw=noise,
    )


@torch.no_grad()
def with_own_frames(
    sample: Prepared, transformer: MementoTransformer, attention: AttentionForm = "split"
) -> Prepared:
    """The sample with the last shot's frames as the model itself makes them (self-forcing).

    When stories are generated, memory holds what the model made, faults included; trained on films alone it
    never meets them. The frames are noised to the sample's level and predicted in one pass as reconstruction
    slots, from the older frames as memory and the last shot's caption.
    """
    old, own = sample.candidates_cfhw[:, : -sample.last], sample.candidates_cfhw[:, -sample.last :]
    assert sample.last_td is not None
    conditioning = condition_shot(
        sample.grey,
        memory=Memory(latents_cmhw=old, times=sample.times[: -sample.last]),
        start_frame=sample.start_frame,
        num_identities=sample.last,
        compat=transformer.compat,
    )
    clean = conditioning.clean(own[None], sample.target_cfhw[None])
    generator = torch.Generator().manual_seed(sample.noise_seed + 2)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    sigma = float(sample.level.sigma_b[0])
    noisy = mix(clean, noise, sigma)
    velocity = transformer(
        conditioning.model_input(noisy),
        sample.level.timestep_b.to(clean.device),
        [sample.last_td],
        positions_bf=conditioning.positions_bf,
        layout=conditioning.layout,
        identity_text=[[sample.last_td]],
        attention=attention,
    )
    made = (noisy - sigma * velocity)[0, :, conditioning.layout.identity]
    return replace(sample, candidates_cfhw=torch.cat((old, made.to(old)), dim=1))


def bank_size(objective: ObjectiveConfig, query: KeyframeQuery | None) -> int:
    """Memory frames that a shot sees."""
    return query.config.bank_size if query is not None else objective.bank_frames


def elect(
    sample: Prepared,
    transformer: MementoTransformer,
    query: KeyframeQuery | None,
    num_kept: int,
    *,
    drawn: bool = False,
) -> tuple[Memory, Selection | None]:
    """Memory for the shot: what the queries pick, with their gradient.

    They are asked even where all candidates fit, as in the reference: their scores learn from it, and every
    process of a sharded run does the same work.

    Args:
        sample: with its candidates.
        transformer: embeds the queries' texts.
        query: None remembers a random subset.
        num_kept: size of that subset.
        drawn: while the queries train, draw their picks in proportion to the softmax over their scores.
    """
    everything = Memory(latents_cmhw=sample.candidates_cfhw, times=sample.times)
    if query is None:
        random = torch.Generator().manual_seed(sample.noise_seed + 1)
        kept = torch.randperm(len(sample.times), generator=random)[:num_kept].sort().values.tolist()
        return _take(everything, kept, sample.candidates_cfhw[:, kept]), None
    positions = query_positions(sample.times, sample.start_frame)
    selection = query(
        sample.candidates_cfhw[None],
        torch.tensor([positions], device=sample.candidates_cfhw.device),
        transformer.embed_text([sample.local_td]),
        transformer.embed_text([sample.global_td]),
        noise_bgf=_gumbel(sample) if drawn and query.training else None,
    )
    picked = selection.picked_bk[0].tolist()
    return _take(everything, picked, selection.take(sample.candidates_cfhw[None])[0]), selection


def _gumbel(sample: Prepared) -> Tensor:
    """Noise of a sample for either group of queries, on its device: [1, 2, f]."""
    random = torch.Generator().manual_seed(sample.noise_seed + 3)
    noise_bgf = -torch.empty(1, 2, len(sample.times)).exponential_(generator=random).log()
    return noise_bgf.to(sample.candidates_cfhw.device)


def _take(memory: Memory, indices: Sequence[int], latents_cmhw: Tensor) -> Memory:
    return Memory(latents_cmhw=latents_cmhw, times=tuple(memory.times[i] for i in indices))
