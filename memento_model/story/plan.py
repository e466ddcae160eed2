"""From a story script to what each shot needs: task, guidance, seed and place in time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from curation.stories.script import StoryScript
from memento_model.config import Compat, FrameGrid
from memento_model.nn.attention import AttentionForm

Mode = Literal["memento", "storymem", "wan"]
"""Learned memory, StoryMem's rules, or no memory at all."""
Task = Literal["T2V", "TM2V", "TMI2V", "MM2V", "MR2V"]
MOTION_FRAMES = 5
NEGATIVE_PROMPT = Path(__file__).with_name("negative_prompt.txt")
"""Wan's own."""


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """How a story is generated; everything here decides the result.

    Attributes:
        mode: `memento`, `storymem` or `wan` (no memory).
        seed: of the story; every shot has noise of its own derived from it.
        steps: of the solver; None is the model's own number (40).
        guidance: classifier-free guidance scale; a cut adds `Compat.tm2v_cfg_bonus` in mode memento.
        reconstruct: give a Memento-form story's subjects a reconstruction slot (paper, section 3.3).
        attention: `split`: reconstruction slot and shot do not see each other; `joint`: everything sees
            everything; None is the mode's own. Weights want the form that they were trained with.
        continuation_frames: frames of the last shot that a shot without a cut begins with: 1 (TMI2V) or 5
            (MM2V).
        negative_prompt: None is Wan's own.
        grid: size of every shot.
        crf: constant rate factor of the videos; lower is better and larger.
        batch_guidance: both guidance branches as one batch: faster on small models.
    """

    mode: Mode = "memento"
    seed: int = 0
    steps: int | None = None
    guidance: float = 3.5
    reconstruct: bool = True
    attention: AttentionForm | None = None
    continuation_frames: int = 1
    negative_prompt: str | None = None
    grid: FrameGrid = field(default_factory=FrameGrid)
    crf: int = 10
    batch_guidance: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled."""
        if self.continuation_frames not in (1, MOTION_FRAMES):
            raise ValueError(f"continuation_frames is 1 or {MOTION_FRAMES}, not {self.continuation_frames}")
        if self.continuation_frames >= self.grid.num_frames:
            raise ValueError(
                f"{self.continuation_frames} old frames leave nothing new in {self.grid.num_frames}"
            )
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    @property
    def attention_form(self) -> AttentionForm:
        """How shots with memory attend."""
        return self.attention or ("split" if self.mode == "memento" else "joint")


@dataclass(frozen=True, kw_only=True)
class ShotPlan:
    """One shot to make.

    Attributes:
        stem: `SS_HH`, the name of its files.
        index: in the story, from 0.
        prompt: the whole prompt.
        global_prompt: its global part; the whole prompt where it has none.
        identity_prompt: what the reconstruction slot reads; None without one.
        task: what it is made from.
        guidance: classifier-free guidance scale.
        seed: of its noise.
        start_frame: pixel frames at 16 fps since the story began.
        num_dropped: leading frames left out of its video, because the shot before ends with them.
    """

    stem: str
    index: int
    prompt: str
    global_prompt: str
    identity_prompt: str | None
    task: Task
    guidance: float
    seed: int
    start_frame: int
    num_dropped: int

    @property
    def continues(self) -> bool:
        """Whether it begins with frames of the shot before."""
        return self.task in ("TMI2V", "MM2V")


def plan_story(
    story: StoryScript, settings: GenerateSettings, compat: Compat, *, has_references: bool = False
) -> list[ShotPlan]:
    """The shots of a story in order.

    Args:
        story: at least one shot.
        settings: of the run.
        compat: guidance bonus and repeated frames.
        has_references: reference images are remembered before the first shot (MR2V).

    Raises:
        ValueError: a story without shots.
    """
    if not story.shots:
        raise ValueError(f"{story.story_name!r} has no shots")
    identity = story.reconstruct_target if settings.reconstruct and settings.mode == "memento" else None
    plans: list[ShotPlan] = []
    start = 0
    for index, shot in enumerate(story.shots):
        task = _task(index, shot.cut, settings, has_references)
        drops = compat.drop_repeated_first_frame and task in ("TMI2V", "MM2V")
        num_dropped = settings.continuation_frames if drops else 0
        bonus = compat.tm2v_cfg_bonus if task in ("TM2V", "MR2V") and settings.mode == "memento" else 0.0
        plans.append(
            ShotPlan(
                stem=shot.stem,
                index=index,
                prompt=shot.prompt,
                global_prompt=shot.parts[0],
                identity_prompt=" ".join(identity.split()) if identity and task != "T2V" else None,
                task=task,
                guidance=settings.guidance + bonus,
                seed=shot_seed(settings.seed, shot.stem),
                start_frame=start,
                num_dropped=num_dropped,
            )
        )
        start += settings.grid.num_frames - num_dropped
    return plans


def _task(index: int, cut: bool, settings: GenerateSettings, has_references: bool) -> Task:
    if index == 0:
        return "MR2V" if has_references else "T2V"
    if not cut:
        return "TMI2V" if settings.continuation_frames == 1 else "MM2V"
    return "T2V" if settings.mode == "wan" else "TM2V"


def shot_seed(seed: int, stem: str) -> int:
    """A seed of its own for every shot; equal names share it, so that methods can be compared in pairs."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stem}".encode()).digest()[:7])
