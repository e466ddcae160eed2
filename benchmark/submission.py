"""A method's videos: which file, or which frames of it, is which shot of which story.

    <method>/<story>/SS_HH.mp4

is what Memento and StoryMem leave. Other names are told by a template, and videos of several shots by a
manifest of declared frame ranges (`benchmark.ranges`); nothing is found by a detector. Files that are no
shot, such as the film of all shots, are listed and never scored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.stories import ShotKey, Story, resolve_story
from benchmark.words import counted

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")

NO_STORY, NO_SHOT_NAME = "no story of the benchmark is called", "its name is not that of a shot"
"""Why a video is no shot: the reason begins so."""

EARLIER = "earlier"
"""Folder of a story in which `memento generate` keeps takes that an edit replaced: nothing to wonder at."""

LAYOUTS: dict[str, str] = {
    "memento": "{story}/{scene}_{shot}.mp4",
    "storymem": "{story}/{scene}_{shot}.mp4",
    "storydiffusion": "{story}/{index}.mp4",
    "ic-lora": "{story}/{index}.mp4",
    "per-shot": "{story}/{index}.mp4",
}
"""Where a shot's video lies below a method's folder. `{scene}` and `{shot}` are declared numbers, `{index}`
the number of the shot in its story; any padding with zeros. Methods whose stills become videos in a second
step have no names of their own: give a template of yours where these do not fit."""


class SubmissionError(ValueError):
    """A submission cannot be read at all; the message says why and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a video file is. `sha256` is its id; sizes are pixels after rotation.

    `bitrate` is of the video stream, bits per second; `matrix` is `bt709`, `bt601` or `untagged`.
    """

    sha256: str
    frames: int
    fps: float
    height: int
    width: int
    codec: str
    pix_fmt: str
    bitrate: float
    duration_s: float
    matrix: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The video of one shot: frames [start, end) of a file; `end` None is the file's end."""

    path: Path
    start: int = 0
    end: int | None = None
    facts: VideoFacts | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the shot; 0 before the file was looked at."""
        end = self.end if self.end is not None else self.facts.frames if self.facts else self.start
        return end - self.start

    @property
    def id(self) -> str:
        """Id of the content: hash of the file, and the range if it is not the whole file."""
        assert self.facts is not None, "look at the files first: `probed`"
        whole = self.start == 0 and self.end in (None, self.facts.frames)
        return self.facts.sha256 if whole else f"{self.facts.sha256}:{self.start}-{self.end}"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The videos of a method.

    Attributes:
        method: its name.
        clips: story key -> shot -> clip; what is missing is absent.
        missing: (story key, shot) of each shot of the benchmark without a usable video.
        ignored: files that are no shot, relative to the folder, and why.
        faults: what is wrong, a line each.
    """

    method: str
    clips: Mapping[str, Mapping[ShotKey, Clip]]
    missing: tuple[tuple[str, ShotKey], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def num_clips(self) -> int:
        """How many shots have a video."""
        return sum(map(len, self.clips.values()))

    def missing_lines(self) -> list[str]:
        """A line for each story that lacks shots: `robinson: 2 of 10 missing: 01_03, 02_01`."""
        lines = []
        for key in dict.fromkeys(story for story, _ in self.missing):
            stems = [shot.stem for story, shot in self.missing if story == key]
            total = len(stems) + len(self.clips.get(key, {}))
            lines.append(f"{key}: {len(stems)} of {total} missing: {', '.join(stems)}")
        return lines


def read_folder(
    root: Path | str,
    stories: Mapping[str, Story],
    *,
    layout: str = "memento",
    method: str | None = None,
    first_index: int | None = None,
) -> Submission:
    """The shots below a method's folder.

    Args:
        root: of the method. If it holds no folder of a story but bears a story's name, it is taken for
            that story alone.
        stories: by key.
        layout: one of `LAYOUTS`, or a template of that form.
        method: its name; the folder's if not given.
        first_index: number of a story's first shot for `{index}`; if not given, 0 where a file has that
            number, else 1.

    Raises:
        SubmissionError: no such folder, or no such layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise SubmissionError(f"{root}: no such folder: give the folder that holds the stories' folders")
    template = LAYOUTS.get(layout, layout)
    pattern = _pattern(template)
    alone = resolve_story(root.resolve().name, stories) if template.startswith("{story}/") else None
    if alone and any(resolve_story(p.name, stories) for p in root.iterdir() if p.is_dir()):
        alone = None
    found = _Found(stories, first_index)
    for path in sorted(_files(root)):
        if _hidden(path, root):
            continue
        name = path.relative_to(root).as_posix()
        told = f"{stories[alone].key}/{name}" if alone else name
        found.add(path, name, pattern.fullmatch(told))
    clips = found.clips()
    return Submission(
        method=method or root.resolve().name,
        clips=clips,
        missing=missing_shots(clips, stories),
        ignored=tuple(found.ignored),
        faults=tuple(found.faults),
    )


def missing_shots(
    clips: Mapping[str, Mapping[ShotKey, Clip]], stories: Mapping[str, Story]
) -> tuple[tuple[str, ShotKey], ...]:
    """Every shot of the benchmark that has no clip, in the order of the stories and scripts."""
    return tuple(
        (key, shot.key)
        for key in sorted(stories)
        for shot in stories[key].shots
        if shot.key not in clips.get(key, {})
    )


def probed(
    submission: Submission,
    stories: Mapping[str, Story],
    look: Callable[[Path], VideoFacts | str] | None = None,
) -> Submission:
    """The submission with the facts of every file; what cannot be read becomes missing, with a line.

    Args:
        submission: as it was found.
        stories: by key.
        look: instead of `video_facts`; `benchmark.extraction.looking` remembers what was looked at before.
    """
    look = look or video_facts
    faults = list(submission.faults)
    seen: dict[Path, VideoFacts | str] = {}
    clips: dict[str, dict[ShotKey, Clip]] = {}
    for key, shots in submission.clips.items():
        for shot, clip in shots.items():
            if clip.path not in seen:
                seen[clip.path] = look(clip.path)
            facts = seen[clip.path]
            if isinstance(facts, str):
                faults.append(f"{key} {shot.stem}: {facts}")
            elif clip.end is not None and clip.end > facts.frames:
                line = f"frames {clip.start} to {clip.end} are declared, but {clip.path} has {facts.frames}"
                faults.append(f"{key} {shot.stem}: {line}: mend the manifest")
            else:
                clips.setdefault(key, {})[shot] = replace(clip, facts=facts)
    missing = missing_shots(clips, stories)
    return replace(submission, clips=clips, missing=missing, faults=tuple(dict.fromkeys(faults)))


def video_facts(path: Path) -> VideoFacts | str:
    """What a file is, or a line that says why it cannot be scored. Its packets are counted, not decoded."""
    import av

    from curation.video.decode import BadInput, open_video
    from curation.video.probe import probe
    from curation.weights import sha256_of

    try:
        stream, _, notes = probe(str(path))
        with open_video(str(path)) as container:
            video = container.streams[stream["stream_index"]]
            size = sum(packet.size for packet in container.demux(video))
            matrix = _matrix(getattr(video.codec_context, "colorspace", None))
    except BadInput as bad:
        return f"{bad.detail or path}; write the video again"
    except (av.error.FFmpegError, OSError) as error:
        return f"{path}: cannot be read ({error}); write the video again"
    return VideoFacts(
        sha256=sha256_of(path),
        frames=stream["num_packets"],
        fps=stream["fps"] or stream["num_packets"] / (stream["duration_s"] or 1.0),
        height=stream["height"],
        width=stream["width"],
        codec=stream["codec"],
        pix_fmt=stream["pix_fmt"],
        bitrate=8 * size / stream["duration_s"] if stream["duration_s"] else 0.0,
        duration_s=stream["duration_s"],
        matrix=matrix,
        notes=tuple(notes),
    )


def _matrix(value: object) -> str:
    number = int(getattr(value, "value", value) or 0)  # type: ignore[call-overload]
    return {1: "bt709", 5: "bt601", 6: "bt601"}.get(number, "untagged")


class _Found:
    """Files sorted into shots, or put aside with the reason."""

    def __init__(self, stories: Mapping[str, Story], first_index: int | None) -> None:
        self.stories, self.first_index = stories, first_index
        self.ignored: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self._named: dict[str, dict[ShotKey, Path]] = {}
        self._numbered: dict[str, dict[int, Path]] = {}

    def add(self, path: Path, name: str, match: re.Match[str] | None) -> None:
        """Put a file where its name says."""
        if match is None:
            if path.suffix.lower() in VIDEO_SUFFIXES and EARLIER not in name.split("/"):
                self.ignored.append((name, NO_SHOT_NAME))
            return
        key = resolve_story(match["story"], self.stories)
        if key is None:
            self.ignored.append((name, f"{NO_STORY} {match['story']}"))
        elif "index" in match.groupdict():
            self._put(self._numbered.setdefault(key, {}), int(match["index"]), path, name)
        else:
            shot = ShotKey(int(match["scene"]), int(match["shot"]))
            if shot not in {s.key for s in self.stories[key].shots}:
                self.ignored.append((name, f"the script of {key} has no shot {shot.stem}"))
            else:
                self._put(self._named.setdefault(key, {}), shot, path, name)

    def clips(self) -> dict[str, dict[ShotKey, Clip]]:
        """The shots found, in the order of the scripts."""
        for key, files in self._numbered.items():
            self._named[key] = self._by_index(key, files)
        return {
            key: {s.key: Clip(path=files[s.key]) for s in self.stories[key].shots if s.key in files}
            for key, files in sorted(self._named.items())
        }

    def _by_index(self, key: str, files: Mapping[int, Path]) -> dict[ShotKey, Path]:
        shots = self.stories[key].shots
        first = (0 if 0 in files else 1) if self.first_index is None else self.first_index
        found = {}
        for index, path in sorted(files.items()):
            if 0 <= index - first < len(shots):
                found[shots[index - first].key] = path
            else:
                self.ignored.append((path.name, f"the script of {key} has {counted(len(shots), 'shot')}"))
        return found

    def _put(self, files: dict, place: ShotKey | int, path: Path, name: str) -> None:
        if place in files:
            self.ignored.append((name, f"the same shot as {files[place].name}"))
            self.faults.append(f"{name} is the same shot as {files[place].name}, which is used: remove one")
        else:
            files[place] = path


def _pattern(template: str) -> re.Pattern[str]:
    fields = re.findall(r"\{(\w*)\}", template)
    if sorted(fields) not in (["index", "story"], ["scene", "shot", "story"]):
        raise SubmissionError(
            f"{template!r} is no layout: use {', '.join(LAYOUTS)}, or a template with {{story}} and either "
            "{index} or {scene} and {shot}"
        )
    text = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    parts = {"story": r"(?P<story>[^/]+)", **{n: rf"(?P<{n}>\d+)" for n in ("scene", "shot", "index")}}
    return re.compile(re.sub(r"\{(\w+)\}", lambda m: parts[m[1]], text))


def _files(root: Path) -> Iterator[Path]:
    """Files below a folder, also behind links to folders; a link back up is not followed."""
    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield from (path for name in names if (path := Path(folder) / name).is_file())


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def stories_of(submissions: Iterable[Submission]) -> list[str]:
    """Stories of which every one of several methods has at least one shot: those that compare."""
    each: Sequence[set[str]] = [set(s.clips) for s in submissions]
    return sorted(set.intersection(*each)) if each else []
