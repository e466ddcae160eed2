"""From videos and stories to a store of features: `extract`.

Only what the folder lacks is decoded and encoded, every file once for all encoders together. A file that
turns out broken, or shorter than it says, changes what its scene's joined frames are: then what depends
on that is planned again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmark.evaluation import Work
from benchmark.extraction.decoding import FileEnd
from benchmark.extraction.lacking import Wanted, jobs_for, wanted
from benchmark.extraction.plan import Plan, make_plan
from benchmark.extraction.shelf import Shelf, read_checked
from benchmark.extraction.shots import from_record
from benchmark.extraction.spreading import EncoderFactory, Place, made, spread
from benchmark.extraction.store import DiskFeatures, weight_free_numbers
from benchmark.extraction.working import (
    Encoders,
    Outcome,
    Tell,
    fault_path,
    numbers_path,
    shelf_of,
    text_shelf,
)
from benchmark.features import TEXT, FeatureStore, unit_name
from benchmark.presets import Preset
from benchmark.stories import ShotKey, Story
from benchmark.submission import Clip, Submission, missing_shots
from benchmark.weight_free import ShotNumbers

ROUNDS = 3
"""The first finds files that break, the second encodes what depends on them, the third is for surprises."""


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """One method.

    Attributes:
        submission: without the shots whose videos cannot be read, and with the lengths that they have.
        store: features, read from disk.
        work: what was done.
        faults: what is wrong with its videos or features, a line each.
    """

    submission: Submission
    store: FeatureStore
    work: Work
    faults: tuple[str, ...]


def extract(
    submission: Submission,
    stories: Mapping[str, Story],
    preset: Preset,
    encoders: Encoders | EncoderFactory,
    folder: Path | str,
    *,
    workers: int = 1,
    devices: Sequence[str] = ("cpu",),
    ray: bool = False,
) -> tuple[FeatureStore, Work, tuple[str, ...]]:
    """Features of one method: store, what was done, and faults. See `extract_all`."""
    place = Place(workers=workers, devices=tuple(devices), ray=ray)
    (found,) = extract_all([submission], stories, preset, encoders, folder, place=place)
    return found.store, found.work, found.faults


def extract_all(
    submissions: Sequence[Submission],
    stories: Mapping[str, Story],
    preset: Preset,
    encoders: Encoders | EncoderFactory,
    folder: Path | str,
    *,
    place: Place | None = None,
    tell: Tell = lambda kind, count: None,
) -> list[Extracted]:
    """Features of methods, for a preset and every other reading of its columns.

    Args:
        submissions: looked at (`benchmark.submission.probed`).
        stories: by key, with the prompts that videos are compared with.
        preset: what is read.
        encoders: of this process, or a function of `device` that makes them, which several workers need.
        folder: where features are kept; any number of methods, presets and runs share it.
        place: workers and devices; one worker here on the CPU if not given.
        tell: is told a kind and a number for each batch that is on disk.

    Raises:
        ExtractionError: an encoder fails or a worker is killed. What was encoded is kept.
    """
    place, started = place or Place(), time.perf_counter()
    here = made(encoders, place.devices[0])
    run = _Run(stories, preset, Path(folder), here, [_Method(s) for s in submissions])
    for _ in range(ROUNDS):
        want = run.plan()
        jobs = jobs_for(run.to_do(want), run.shelves, run.unmeasured(), run.files())
        if not jobs:
            break
        chosen = encoders if place.ray or place.workers > 1 else here
        run.settle(spread(jobs, chosen, run.folder, place, tell))
    wall = time.perf_counter() - started
    return [run.result(number, wall) for number in range(len(run.methods))]


@dataclass
class _Method:
    declared: Submission
    submission: Submission = field(default_factory=lambda: Submission(method="", clips={}))
    plan: Plan = field(default_factory=lambda: Plan(clips={}, frames={}, units={}, texts={}))
    faults: list[str] = field(default_factory=list)


class _Run:
    """What is known while rounds go on."""

    def __init__(
        self,
        stories: Mapping[str, Story],
        preset: Preset,
        folder: Path,
        encoders: Encoders,
        methods: list[_Method],
    ) -> None:
        self.stories, self.preset, self.folder, self.methods = stories, preset, folder, methods
        self._encoders, self._notes = encoders, list[str]()
        self._ends: dict[str, FileEnd] = {}
        self._passes: Counter[str] = Counter()
        self._decoding: Counter[str] = Counter()
        self._numbers: dict[str, ShotNumbers] = {}
        self._outcome = Outcome()
        self.shelves: dict[str, Shelf] = {}
        self._open()

    def _open(self) -> None:
        clips = self._encoders.clips
        for encoder in (*self._encoders.frames, *([clips] if clips else [])):
            self.shelves[encoder.kind] = shelf_of(self.folder, encoder, self._notes)
        if clips:
            self.shelves[TEXT] = text_shelf(self.folder, clips, self._notes)

    def plan(self) -> Wanted:
        """Plan for the videos as far as they are known."""
        tokenize = self._encoders.clips.tokenize if self._encoders.clips else None
        for method in self.methods:
            method.faults = []
            method.submission = self._known(method)
            method.plan = make_plan(self.stories, method.submission, self.preset, tokenize)
        return wanted([method.plan for method in self.methods], self.shelves)

    def to_do(self, want: Wanted) -> Wanted:
        """Without what came out not finite in this run: it would again."""
        keys = {filed: keys for filed, keys in want.keys.items() if not self._outcome.bad[filed]}
        return replace(want, keys=keys)

    def unmeasured(self) -> list[Clip]:
        """Shots without weight-free numbers in files that can be read."""
        clips = [clip for method in self.methods for _, _, clip in _clips(method.declared, self.stories)]
        return [c for c in clips if c.id not in self._numbers and _sha256(c) not in self._ends]

    def files(self) -> dict[str, Path]:
        """SHA-256 -> where the file lies."""
        clips = [clip for method in self.methods for _, _, clip in _clips(method.declared, self.stories)]
        return {_sha256(clip): clip.path for clip in reversed(clips)}

    def settle(self, outcome: Outcome) -> None:
        """Take in what workers did."""
        self._outcome.add(outcome)
        self._ends |= outcome.ends
        for sha256, end in outcome.ends.items():
            self._passes[sha256] += 1
            self._decoding[sha256] += end.seconds  # type: ignore[assignment]
        self._notes += outcome.notes
        self._open()

    def _known(self, method: _Method) -> Submission:
        """The submission with the lengths that videos have, without those that cannot be read."""
        clips: dict[str, dict[ShotKey, Clip]] = {}
        for key, shot, clip in _clips(method.declared, self.stories):
            found = self._shot(clip)
            if isinstance(found, Clip):
                clips.setdefault(key, {})[shot] = found
                if found is clip:
                    continue
                found_line = f"says {clip.num_frames} frames, has {found.num_frames}: only those are used"
            else:
                found_line = found
            method.faults.append(f"{key} {shot.stem}: {found_line}")
        return replace(method.declared, clips=clips, missing=missing_shots(clips, self.stories))

    def _shot(self, clip: Clip) -> Clip | str:
        """A shot with the length that it has, or why it has none."""
        end = self._end(clip)
        if end and end.fault:
            return f"{end.fault}; write the video again"
        if clip.id not in self._numbers:
            record = read_checked(numbers_path(self.folder, clip), self._notes.append)
            if record is not None:
                self._numbers[clip.id] = from_record(record)
        numbers = self._numbers.get(clip.id)
        frames = numbers.frames if numbers else end.frames - clip.start if end else clip.num_frames
        if frames <= 0:
            return f"{clip.path} ends before frame {clip.start}: mend the declared range"
        return clip if frames == clip.num_frames else replace(clip, end=clip.start + frames)

    def _end(self, clip: Clip) -> FileEnd | None:
        """How reading the file ended, in this run, or before if it is known to be broken."""
        sha256 = _sha256(clip)
        if sha256 not in self._ends:
            with contextlib.suppress(OSError, ValueError, KeyError):
                said = json.loads(fault_path(self.folder, sha256).read_text(encoding="utf-8"))
                fault = said["fault"].replace(said["path"], str(clip.path))
                self._ends[sha256] = FileEnd(sha256=sha256, frames=0, numbers=(), fault=fault)
        return self._ends.get(sha256)

    def result(self, number: int, wall: float) -> Extracted:
        """What came out for a method. Work that several share is the first one's."""
        method = self.methods[number]
        before = wanted([m.plan for m in self.methods[:number]], self.shelves)
        mine = wanted([method.plan], self.shelves)
        encoded, reused, seconds = Counter[str](), Counter[str](), 0.0
        for filed in mine.keys:
            done = 0 if filed in before.keys else self._outcome.encoded[filed]
            encoded[filed[0]] += done
            reused[filed[0]] += max(0, mine.count(filed) - done)
            seconds += 0.0 if filed in before.keys else self._outcome.seconds.get(filed, 0.0)
        earlier = {_sha256(c) for m in self.methods[:number] for _, _, c in _clips(m.declared, self.stories)}
        videos = {_sha256(c) for _, _, c in _clips(method.declared, self.stories)}
        work = Work(
            videos=len(videos),
            decode_passes=sum(self._passes[v] for v in videos - earlier),
            encoded=+encoded,
            reused=+reused,
            seconds={
                "decode": float(sum(self._decoding[v] for v in videos - earlier)),
                "encode": seconds,
                "extract": wall,
            },
        )
        shots = {
            (key, shot): self._numbers[clip.id]
            for key, shot, clip in _clips(method.declared, self.stories)
            if clip.id in self._numbers and shot in method.submission.clips.get(key, {})
        }
        store = DiskFeatures(
            method.plan,
            {kind: shelf for kind, shelf in self.shelves.items() if kind != TEXT},
            self.shelves.get(TEXT),
            weight_free_numbers(self.stories, shots),
        )
        faults = [*method.faults, *self._incomplete(mine), *(self._notes if number == 0 else [])]
        return Extracted(
            submission=method.submission,
            store=store,
            work=work,
            faults=tuple(dict.fromkeys(faults)),
        )

    def _incomplete(self, mine: Wanted) -> Iterator[str]:
        """A line for each unit of which features are missing in the end."""
        for (kind, name), keys in mine.keys.items():
            lacks = int(self.shelves[kind].missing(name, keys).sum())
            if lacks:
                where = ", ".join(
                    dict.fromkeys(unit_name(*user) for user in mine.users.get((kind, name), ()))
                )
                bad = self._outcome.bad[kind, name]
                why = "are not finite" if bad else "could not be made"
                yield f"{where or name}: {lacks} of {len(keys)} {kind} features {why}: left out"


def _clips(submission: Submission, stories: Mapping[str, Story]) -> list[tuple[str, ShotKey, Clip]]:
    """(story, shot, video) of all shots of these stories that have a video."""
    return [
        (key, shot.key, submission.clips[key][shot.key])
        for key, story in sorted(stories.items())
        for shot in story.shots
        if shot.key in submission.clips.get(key, {})
    ]


def _sha256(clip: Clip) -> str:
    assert clip.facts is not None, "look at the files first: `benchmark.submission.probed`"
    return clip.facts.sha256
