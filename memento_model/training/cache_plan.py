"""What a run reads from its cache, so that exactly this is encoded: by clip, and every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memento_model.conditioning import spaced_frames
from memento_model.config import FrameGrid
from memento_model.story.plan import NEGATIVE_PROMPT
from memento_model.training.cache_files import FRAME, GIVEN, SHOT
from memento_model.training.config import TrainConfig
from memento_model.training.samples import TrainSequence, last_of, targets_of

EMPTY = ""


@dataclass(frozen=True)
class ClipNeeds:
    """What is encoded of a clip.

    Attributes:
        clip_id: of the first clip with this file, for messages.
        path: of the file.
        shot: the clip is a target of some sample: its shot, and its first frame with grey behind it.
        frames: numbers of frames that are encoded alone, ascending.
    """

    clip_id: str
    path: str
    shot: bool
    frames: tuple[int, ...]

    @property
    def names(self) -> set[str]:
        """Of the tensors in the clip's file."""
        return {f"{FRAME}{number}" for number in self.frames} | ({SHOT, GIVEN} if self.shot else set())

    def pictures(self, grid: FrameGrid) -> set[int]:
        """Numbers of all frames that have to be decoded."""
        return {*self.frames, *(range(grid.num_frames) if self.shot else ())}


@dataclass(frozen=True)
class CachePlan:
    """What is encoded for a run: by path of the file, and all prompts in a fixed order."""

    clips: Mapping[str, ClipNeeds]
    prompts: tuple[str, ...]


def last_frames(config: TrainConfig) -> list[int]:
    """Evenly spaced frames of the clip before a target, by the run's way of rounding."""
    return spaced_frames(config.grid.num_frames, config.objective.last_frames, config.compat)


def plan_cache(sequences: Sequence[TrainSequence], config: TrainConfig) -> CachePlan:
    """Everything that samples of these sequences can ask for, whatever is drawn.

    A clip's shot is needed where it is trained on, its evenly spaced frames where the next one is, its
    candidates where any later one is. Prompts include the empty one and Wan's negative prompt (for pictures).
    """
    clips: dict[str, ClipNeeds] = {}
    prompts: dict[str, None] = {EMPTY: None, NEGATIVE_PROMPT.read_text(encoding="utf-8").strip(): None}
    spaced = last_frames(config)
    for sequence in sequences:
        targets = targets_of(sequence)
        for i, clip in enumerate(sequence.clips):
            after = max(targets) - i
            frames = {t.frame for t in sequence.targets if t.clip == i and after > 0}
            frames |= set(clip.candidates) if after > 1 else set()
            frames |= set(last_of(clip, spaced)) if i + 1 in targets else set()
            before = clips.get(clip.path, ClipNeeds(clip.clip_id, clip.path, False, ()))
            frames |= set(before.frames)
            shot = before.shot or i in targets
            if shot or frames:  # a short clip at the end is of no use
                clips[clip.path] = ClipNeeds(before.clip_id, clip.path, shot, tuple(sorted(frames)))
            prompts |= dict.fromkeys((clip.caption, clip.global_caption))
        prompts |= dict.fromkeys(t.caption for t in sequence.targets)
    return CachePlan(clips, tuple(prompts))
