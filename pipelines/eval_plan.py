"""`memento eval --dry-run`: what an evaluation would cost, before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from benchmark.features import TEXT
from benchmark.presets import Preset
from benchmark.stories import Story
from benchmark.submission import Submission

if TYPE_CHECKING:
    from benchmark.encoders.load import EncoderSet

GFLOP = {"clip-b32": 8.6, "clip-l14": 162.0, "dinov2-b14": 46.0, "viclip-b16": 357.0, "viclip-l14": 1650.0}
"""Of one frame, or one clip of eight: 2 x multiply-adds of the published architectures at 224 pixels."""
FULL_CROP = {"dinov2-b14": 84.0}
"""Of frames that are not cropped: 224 x 392."""


def cost_table(
    submissions: Sequence[Submission], stories: Mapping[str, Story], chosen: Preset, encoders: EncoderSet
) -> Iterator[RenderableType]:
    """Videos and frames of each method, then passes of each encoder over all of them."""
    videos = Table("method", "videos", "shots", "frames", "seconds", title="Videos", title_justify="left")
    for submission in submissions:
        clips = [clip for shots in submission.clips.values() for clip in shots.values()]
        seconds = sum(clip.num_frames / clip.facts.fps for clip in clips if clip.facts)
        frames = sum(clip.num_frames for clip in clips)
        files = len({clip.path for clip in clips})
        videos.add_row(submission.method, str(files), str(len(clips)), f"{frames:,}", f"{seconds:,.0f}")
    yield videos
    counts = passes(submissions, stories, chosen)
    table = Table(
        "encoder", "passes", "TFLOP", "here", title="Encoders, all methods together", title_justify="left"
    )
    total = 0.0
    for fact in encoders.facts:
        if fact.name in counts:
            cost = gflop(fact.name, chosen) * counts[fact.name] / 1000
            total += cost
            unit = "clips of 8" if fact.name.startswith("viclip") else "frames"
            here = "no: not computed" if fact.missing else fact.device
            table.add_row(fact.name, f"{counts[fact.name]:,} {unit}", f"{cost:,.1f}", here)
    table.add_row("all", "", f"{total:,.1f}", "")
    yield table
    yield "Every video is decoded once. Features that are on disk already are not made again."


def passes(submissions: Sequence[Submission], stories: Mapping[str, Story], chosen: Preset) -> dict[str, int]:
    """Encoder -> frames or clips it would encode for all methods; the same content counts once."""
    from benchmark.encoders.load import KINDS, needed
    from benchmark.extraction.lacking import wanted
    from benchmark.extraction.plan import make_plan

    names = {KINDS[name].kind: name for name in needed(chosen)}
    plans = [make_plan(stories, submission, chosen) for submission in submissions]
    want = wanted(plans, names)
    found = dict.fromkeys(names.values(), 0)
    for kind, name in want.keys:
        if kind != TEXT:
            found[names[kind]] += want.count((kind, name))
    return found


def gflop(name: str, chosen: Preset) -> float:
    """Of one pass of an encoder."""
    return FULL_CROP.get(name, GFLOP[name]) if chosen.crop == "full" else GFLOP[name]
