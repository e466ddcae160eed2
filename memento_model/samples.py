"""What a training sample is, and what is drawn for it: pure, and the same on any number of processes.

A sample is a sequence and one of its clips after the first: that clip is the shot to be made, those before it
are what can be remembered. What is drawn for a sample (which frames, which drop-outs) depends on the run's
seed, the epoch and the sample's number alone, never on who works on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memento_model.train_config import ObjectiveConfig


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
    """

    clip_id: str
    path: str
    num_frames: int
    caption: str
    global_caption: str
    start_frame: int
    candidates: tuple[int, ...]


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
    """Every clip after the first of every sequence, in order."""
    return [Sample(sequence=s, target=i) for s in sequences for i in range(1, len(s.clips))]


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the samples: int64 [num_samples], of its own for every epoch."""
    return np.random.default_rng([seed, 1, epoch]).permutation(num_samples)


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
        epoch, number: place in the run.
        last_frames: evenly spaced frames of the clip before the target (`conditioning.spaced_frames`).
    """
    random = np.random.default_rng([seed, 2, epoch, number])
    chance = random.random(9)
    noise_seed = int(random.integers(2**62))
    last = sample.target - 1
    older = [Frame(i, f) for i in range(last) for f in sample.sequence.clips[i].candidates]
    picked = random.permutation(len(older))[: config.bank_frames]
    skip_prior = chance[0] < config.skip_prior_probability
    earlier = [t for t in sample.sequence.targets if t.clip < sample.target]
    order = random.permutation(len(earlier))[: config.num_identities]
    with_identity = bool(earlier) and not skip_prior and chance[1] < config.identity_probability
    drop = config.drop_probability
    return Draw(
        bank=() if skip_prior else tuple(older[i] for i in sorted(picked)),
        last=tuple(Frame(last, f) for f in last_frames),
        identities=tuple(earlier[i] for i in sorted(order)) if with_identity else (),
        first_frame=bool(chance[2] < config.first_frame_probability),
        drop_prompt=bool(chance[3] < drop),
        drop_local=bool(chance[4] < drop),
        drop_global=bool(chance[5] < drop),
        drop_identity=bool(chance[6] < drop),
        level=float(chance[7]),
        noise_seed=noise_seed,
        self_forced=bool(chance[8] < config.self_forcing_probability),
    )
