"""What a method's videos and texts must be encoded for: frames, clips, texts.

Nothing is derived from the definitions of the metrics a second time: each one runs once on a store that holds
no features and writes down what it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmark.encoders.aesthetic import HEADS
from benchmark.features import FRAME_KINDS, TEXT, StoryFeatures, Unit
from benchmark.presets import Preset, all_readings
from benchmark.prompts import Tokenize, text_pieces
from benchmark.sampling import SAMPLERS, split_joined
from benchmark.scoring import Metric
from benchmark.stories import Scene, ShotKey, Story
from benchmark.submission import Clip, Submission

CLIP_FRAMES = 8
CLIP_KINDS: dict[str, int] = {"viclip_8": 8, "viclip_24": 24}
"""Kind -> frames that are sampled from a unit, in clips of eight."""
VICLIP, CLIP_L14 = "viclip", "clip_l14"
ENCODER_OF: dict[str, str] = {
    **{kind: CLIP_L14 if kind in HEADS else kind for kind in FRAME_KINDS},
    **dict.fromkeys((*CLIP_KINDS, TEXT), VICLIP),
}
"""Kind of features that metrics read -> kind of the encoder that they are made by."""


@dataclass(frozen=True, kw_only=True)
class JoinedClip:
    """Eight frames of videos that are joined, no more of them than are needed.

    A scene of three equal shots and those shots have clips in common; so each is known by its content.

    Attributes:
        id: of the joined videos; that of the video where there is one.
        parts: shots' videos in order.
        frames: int32 [8]: joined frames.
    """

    id: str
    parts: tuple[Clip, ...]
    frames: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a preset, in every reading of its columns, reads of one method.

    Attributes:
        clips: (story, shot) -> its video.
        frames: (story, shot) -> kind of the encoder -> frames of the shot, int64, ascending.
        units: (story, unit, `viclip_8` or `viclip_24`) -> clips of a shot, of a scene's or of a story's
            joined frames, without missing shots.
        texts: (story, unit) -> the texts whose pooled feature is the unit's.
    """

    clips: Mapping[tuple[str, ShotKey], Clip]
    frames: Mapping[tuple[str, ShotKey], Mapping[str, np.ndarray]]
    units: Mapping[tuple[str, Unit, str], tuple[JoinedClip, ...]]
    texts: Mapping[tuple[str, Unit], tuple[str, ...]]


def make_plan(
    stories: Mapping[str, Story],
    submission: Submission,
    preset: Preset,
    tokenize: Tokenize | None = None,
    metrics: Iterable[Metric] | None = None,
) -> Plan:
    """What must be encoded.

    Args:
        stories: by key; prompts are those that videos are compared with.
        submission: looked at (`benchmark.submission.probed`).
        preset: sampler, text mode, joiner, and the metrics.
        tokenize: of the text tower; without it no texts are planned.
        metrics: instead of the preset's and all other readings of its columns.
    """
    metrics = list(all_readings(preset) if metrics is None else metrics)
    asked = Asked.by(metrics, stories, submission, strict=preset.strict_missing)
    clips = {
        (key, shot.key): submission.clips[key][shot.key]
        for key, story in sorted(stories.items())
        for shot in story.shots
        if shot.key in submission.clips.get(key, {})
    }
    texts = {}
    for key, unit in sorted(asked.texts):
        if tokenize and (pieces := unit_texts(stories[key], unit, preset, tokenize)):
            texts[key, unit] = pieces
    units = {}
    for key, unit, kind in sorted(asked.units):
        parts = tuple(clips[key, shot] for shot in shots_of(stories[key], unit) if (key, shot) in clips)
        if parts:
            units[key, unit, kind] = unit_clips(parts, CLIP_KINDS[kind], preset.sampler)
    frames: dict[tuple[str, ShotKey], dict[str, np.ndarray]] = {}
    for (key, shot, kind), taken in sorted(asked.frames.items()):
        frames.setdefault((key, shot), {})[kind] = np.flatnonzero(taken)
    return Plan(clips=clips, frames=frames, units=units, texts=texts)


def unit_clips(parts: tuple[Clip, ...], count: int, sampler: str) -> tuple[JoinedClip, ...]:
    """`count` frames of joined videos by a sampler, in clips of eight."""
    lengths = [clip.num_frames for clip in parts]
    ends = np.cumsum(lengths)
    clips = []
    for frames in SAMPLERS[sampler](count, int(ends[-1])).reshape(-1, CLIP_FRAMES):
        owners = np.searchsorted(ends, frames, side="right")
        first, last = int(owners.min()), int(owners.max())
        start = ends[first] - lengths[first]
        run = parts[first : last + 1]
        clips.append(JoinedClip(id=joined_id(run), parts=run, frames=(frames - start).astype(np.int32)))
    return tuple(clips)


def joined_id(parts: tuple[Clip, ...]) -> str:
    """Id of joined videos: of one video its own, else a hash of all ids and lengths in order."""
    if len(parts) == 1:
        return parts[0].id
    text = ",".join(f"{clip.id}*{clip.num_frames}" for clip in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def sources(parts: tuple[Clip, ...], frames: np.ndarray) -> list[tuple[str, int]]:
    """(hash of the file, frame of the file) of each joined frame, in the order given."""
    lengths = [clip.num_frames for clip in parts]
    found: dict[int, tuple[str, int]] = {}
    start = 0
    for clip, taken, length in zip(parts, split_joined(np.unique(frames), lengths), lengths, strict=True):
        assert clip.facts is not None
        found |= {start + int(i): (clip.facts.sha256, clip.start + int(i)) for i in taken}
        start += length
    return [found[int(i)] for i in frames]


def unit_texts(story: Story, unit: Unit, preset: Preset, tokenize: Tokenize) -> tuple[str, ...]:
    """The texts to encode for a shot's prompt, a scene's joined prompts or a story's overview; () if none."""
    mode = preset.text_mode
    if len(unit) == 2:
        prompts = [shot.prompt for shot in story.shots if tuple(shot.key) == tuple(unit)]
        return tuple(text_pieces(prompts[0], mode, tokenize)) if prompts else ()
    if not unit:
        return tuple(text_pieces(story.overview, mode, tokenize)) if story.overview else ()
    scenes = [scene for scene in story.scenes if scene.number == unit[0]]
    return tuple(text_pieces(_scene_text(scenes[0], preset), mode, tokenize)) if scenes else ()


def shots_of(story: Story, unit: Unit) -> list[ShotKey]:
    """Shots of a unit in the order of the script."""
    if len(unit) == 2:
        return [ShotKey(*unit)]
    return [shot.key for shot in story.shots if not unit or shot.key.scene == unit[0]]


def _scene_text(scene: Scene, preset: Preset) -> str:
    if preset.text_mode == "shot-part":
        return preset.scene_joiner.join(shot.shot_text for shot in scene.shots)
    return scene.text(preset.scene_joiner)


@dataclass(frozen=True)
class Asked:
    """A `benchmark.features.FeatureStore` without features that writes down what is read.

    Attributes:
        submission: whose videos there would be features of.
        frames: (story, shot, kind of the encoder) -> bool [frames]: which are read.
        units: (story, unit, kind) of clip features.
        texts: (story, unit).
    """

    submission: Submission
    frames: dict[tuple[str, ShotKey, str], np.ndarray] = field(default_factory=dict)
    units: set[tuple[str, Unit, str]] = field(default_factory=set)
    texts: set[tuple[str, Unit]] = field(default_factory=set)

    @classmethod
    def by(
        cls, metrics: Iterable[Metric], stories: Mapping[str, Story], submission: Submission, *, strict: bool
    ) -> Asked:
        """What metrics read on stories."""
        asked = cls(submission)
        views = [StoryFeatures(stories[key], asked, strict) for key in sorted(stories)]
        for metric in metrics:
            if set(metric.needs) & ENCODER_OF.keys():
                for view in views:
                    metric.groups(view)
        return asked

    def kinds(self) -> frozenset[str]:
        """See `FeatureStore`."""
        return frozenset(ENCODER_OF)

    def num_frames(self, story: str, shot: ShotKey) -> int:
        """See `FeatureStore`."""
        clip = self.submission.clips.get(story, {}).get(ShotKey(*shot))
        return clip.num_frames if clip else 0

    def fps(self, story: str, shot: ShotKey) -> float | None:
        """See `FeatureStore`."""
        clip = self.submission.clips.get(story, {}).get(ShotKey(*shot))
        return clip.facts.fps or None if clip and clip.facts else None

    def get(self, story: str, unit: Unit, kind: str) -> np.ndarray | None:
        """See `FeatureStore`."""
        unit = tuple(unit)
        if kind == TEXT:
            self.texts.add((story, unit))
            return np.ones(1)
        if kind in CLIP_KINDS:
            self.units.add((story, unit, kind))
            return np.ones((1, 1))
        if kind in FRAME_KINDS:
            return self.rows(story, ShotKey(*unit), kind, np.arange(self.num_frames(story, ShotKey(*unit))))
        return None

    def rows(self, story: str, shot: ShotKey, kind: str, frames: np.ndarray) -> np.ndarray | None:
        """See `FeatureStore`."""
        place = (story, ShotKey(*shot), ENCODER_OF[kind])
        if place not in self.frames:
            self.frames[place] = np.zeros(self.num_frames(story, shot), bool)
        self.frames[place][frames] = True
        return np.ones(len(frames)) if kind in HEADS else np.ones((len(frames), 1))
