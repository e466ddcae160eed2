"""What a training sample is, and what is drawn for it: pure, and the same on any number of processes.

A sample is a sequence and one of its clips after the first: that clip is the shot to be made, those before it
are what can be remembered. What is drawn for a sample (which frames, which drop-outs) depends on the run's
seed, the epoch and the sample's number alone, never on who works on it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from memento_model.training.config import ObjectiveConfig

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A shot of a sequence as it was published.

    Attributes:
        clip_id: id in the dataset.
        path: of the video, 16 fps.
        num_frames: of the file.
        caption: global and shot part in the trainer's grammar.
        global_caption: the global part alone.
        start_frame: pixel frames at 16 fps from the sequence's first clip to this one.
        candidates: frames that can be remembered, in order (4 a second).
        is_target: the clip is as long as a shot; a shorter one is remembered but not trained on.
    """

    clip_id: str
    path: str
    num_frames: int
    caption: str
    global_caption: str
    start_frame: int
    candidates: tuple[int, ...]
    is_target: bool = True


@dataclass(frozen=True, kw_only=True)
class ReconTarget:
    """A frame with its subject's description. `clip` and `frame` say where: index in the sequence, 16 fps."""

    recon_id: str
    clip: int
    frame: int
    caption: str


@dataclass(frozen=True, kw_only=True)
class TrainSequence:
    """A sequence whose clips and targets passed the trainer's contract; at least two clips."""

    sequence_id: str
    film_id: str
    clips: tuple[Clip, ...]
    targets: tuple[ReconTarget, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sequence and the clip to be made: `target` >= 1 is its index."""

    sequence: TrainSequence
    target: int

    @property
    def sample_id(self) -> str:
        """For messages and logs."""
        return f"{self.sequence.sequence_id}/{self.target}"


@dataclass(frozen=True)
class Frame:
    """A frame of the sequence: index of the clip, frame in it."""

    clip: int
    frame: int


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What is drawn for a sample.

    Attributes:
        bank: frames of all clips before the last one, random, in order of time; empty when they are skipped.
        last: evenly spaced frames of the clip before the target.
        identities: reconstruction targets to give a slot.
        first_frame: the target's first frame is given.
        drop_prompt, drop_local, drop_global, drop_identity: use the empty text for the shot prompt in the
            transformer, for either prompt of the queries, for the reconstruction captions.
        level: uniform number in [0, 1) that chooses the noise level.
        noise_seed: of the noise.
        self_forced: take memory from generated shots.
    """

    bank: tuple[Frame, ...]
    last: tuple[Frame, ...]
    identities: tuple[ReconTarget, ...]
    first_frame: bool
    drop_prompt: bool
    drop_local: bool
    drop_global: bool
    drop_identity: bool
    level: float
    noise_seed: int
    self_forced: bool

    @property
    def candidates(self) -> tuple[Frame, ...]:
        """All frames that can be remembered."""
        return (*self.bank, *self.last)


def samples_of(sequences: Sequence[TrainSequence]) -> list[Sample]:
    """Every clip after the first of every sequence that is long enough, in order."""
    return [Sample(sequence=s, target=i) for s in sequences for i in targets_of(s)]


def targets_of(sequence: TrainSequence) -> list[int]:
    """Indices of the clips that a sequence can be trained on."""
    return [i for i, clip in enumerate(sequence.clips) if i and clip.is_target]


def last_of(clip: Clip, last_frames: Sequence[int]) -> tuple[int, ...]:
    """The evenly spaced frames of a clip before a target.

    Args:
        clip: may be shorter than a shot; then its frames are spaced as evenly over the longest 4n+1 of them.
        last_frames: of a clip as long as a shot, ascending.
    """
    end = last_frames[-1]
    if end < clip.num_frames:
        return tuple(last_frames)
    return tuple(f * ((clip.num_frames - 1) // 4 * 4) // end for f in last_frames)


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the samples: int64 [num_samples], of its own for every epoch."""
    return np.random.default_rng([seed, 1, epoch]).permutation(num_samples)


@dataclass(frozen=True)
class Place:
    """Where a run stands: the `number`-th sample of an epoch is `index` in the list of samples."""

    epoch: int
    number: int
    index: int


def place_of(count: int, num_samples: int, seed: int) -> Place:
    """Which sample comes after `count` others; `count` is all that a checkpoint needs to keep.

    Processes that work side by side take consecutive counts, so the samples of an optimiser step are the
    same on any number of processes that divides it.

    Args:
        count: samples before this one since the run began, on all processes together.
        num_samples: of an epoch.
        seed: of the run.
    """
    epoch, number = divmod(count, num_samples)
    return Place(epoch, number, int(_order(num_samples, seed, epoch)[number]))


@functools.lru_cache(maxsize=4)
def _order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return epoch_order(num_samples, seed, epoch)


def draw(
    sample: Sample, config: ObjectiveConfig, *, seed: int, epoch: int, number: int, last_frames: Sequence[int]
) -> Draw:
    """Draw for the `number`-th sample of an epoch.

    Every drop-out is independent of the others; numbers are always drawn in the same order, so changing one
    probability leaves the other draws as they were.

    Args:
        sample: what to draw for.
        config: probabilities.
        seed: of the run.
        epoch: of the run.
        number: of the sample in the epoch.
        last_frames: evenly spaced frames of the clip before the target (`conditioning.spaced_frames`).
    """
    random = np.random.default_rng([seed, 2, epoch, number])
    chance = iter(random.random(9).tolist())
    noise_seed = int(random.integers(2**62))
    skip_prior = next(chance) < config.skip_prior_probability
    with_identity = next(chance) < config.identity_probability
    bank = _some(older_frames(sample), config.bank_frames, random)
    identities = _some(earlier_targets(sample), config.num_identities, random)
    drop, before = config.drop_probability, sample.target - 1
    return Draw(
        bank=() if skip_prior else bank,
        last=tuple(Frame(before, f) for f in last_of(sample.sequence.clips[before], last_frames)),
        identities=identities if with_identity and not skip_prior else (),
        first_frame=next(chance) < config.first_frame_probability,
        drop_prompt=next(chance) < drop,
        drop_local=next(chance) < drop,
        drop_global=next(chance) < drop,
        drop_identity=next(chance) < drop,
        level=next(chance),
        noise_seed=noise_seed,
        self_forced=next(chance) < config.self_forcing_probability,
    )


def older_frames(sample: Sample) -> list[Frame]:
    """What can be remembered of the clips before the last one, in order of time."""
    clips = sample.sequence.clips[: sample.target - 1]
    return [Frame(i, f) for i, clip in enumerate(clips) for f in clip.candidates]


def earlier_targets(sample: Sample) -> list[ReconTarget]:
    """Reconstruction targets of clips before the one to be made."""
    return [t for t in sample.sequence.targets if t.clip < sample.target]


def _some(things: Sequence[T], most: int, random: np.random.Generator) -> tuple[T, ...]:
    """At most so many of them, at random, in their order."""
    picked = random.permutation(len(things))[:most]
    return tuple(things[i] for i in sorted(picked))
