"""Videos that hold several shots, such as HoloCine's: a manifest declares which frames are which shot.

    {"format": "memento-ranges/1",
     "method": "HoloCine",
     "videos": [{"path": "robinson/scene1.mp4", "story": "robinson", "scene": 1,
                 "shots": [[0, 81], [81, 161], [161, 241]]}]}

Ranges are half-open, in frames as the file has them; paths are relative to the manifest. `shots` are those of
the scene, in order, or of the whole story where `scene` is absent. Instead of `shots`, `cuts` may list the
first frames of all shots but the first, as the generator took them. A video with `proposal` was divided by
`memento stbench ranges`; every evaluation says so until a person has removed the word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmark.stories import ShotKey, Story, resolve_story
from benchmark.submission import Clip, Submission, SubmissionError, missing_shots
from benchmark.words import counted

FORMAT = "memento-ranges/1"
UNCHECKED = "a proposal of ranges that nobody has checked: look at the frames, then remove `proposal`"


def ranges_of_cuts(cuts: Sequence[int], num_frames: int) -> list[tuple[int, int]]:
    """Half-open ranges between the first frames of shots: [81], 161 gives (0, 81), (81, 161).

    Raises:
        ValueError: the cuts do not ascend inside the video.
    """
    edges = [0, *cuts, num_frames]
    if any(b <= a for a, b in pairwise(edges)):
        raise ValueError(f"cuts {list(cuts)} do not ascend between 0 and {num_frames}")
    return list(pairwise(edges))


def propose_ranges(
    cuts: Sequence[int], num_frames: int, num_shots: int, reach: int
) -> tuple[list[tuple[int, int]], str]:
    """Ranges of a film's shots for a person to check, and in words what they rest on.

    Most methods make shots of one length, some of which show no cut to the one before. So the film is divided
    into equal parts, and a border is moved to a found cut that is near. Only where few borders have such a
    cut, but there are exactly as many cuts as the script needs, these are taken instead.

    Args:
        cuts: first frames after the cuts that were found, ascending.
        num_frames: of the film.
        num_shots: of the script.
        reach: frames by which a border may be moved.

    Raises:
        ValueError: the film has fewer frames than the script has shots.
    """
    if num_frames < num_shots:
        raise ValueError(f"{counted(num_frames, 'frame')} for {counted(num_shots, 'shot')}")
    equal = [round(num_frames * place / num_shots) for place in range(1, num_shots)]
    reach = min(reach, (num_frames // num_shots - 1) // 2)
    borders = []
    for border in equal:
        near = [cut for cut in cuts if abs(cut - border) <= reach]
        borders.append(min(near, key=lambda cut: abs(cut - border)) if near else border)
    found = f"{counted(len(cuts), 'cut was', 'cuts were')} found where {num_shots - 1} are needed"
    at_cut = sum(border in cuts for border in borders)
    if len(cuts) == len(equal) and 2 * at_cut < len(equal):
        return ranges_of_cuts(cuts, num_frames), f"{found}: these, though they do not lie at equal parts"
    return ranges_of_cuts(
        borders, num_frames
    ), f"{found}: equal parts, {at_cut} of whose borders lie at a cut"


def read_ranges(path: Path | str, stories: Mapping[str, Story], *, method: str | None = None) -> Submission:
    """The submission that a manifest declares.

    Args:
        path: of the manifest.
        stories: by key.
        method: its name; else the manifest's, else its folder's.

    Raises:
        SubmissionError: the manifest cannot be read.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SubmissionError(f"{path}: cannot be read as JSON ({error})") from error
    if (
        not isinstance(value, dict)
        or value.get("format") != FORMAT
        or not isinstance(value.get("videos"), list)
    ):
        raise SubmissionError(f'{path}: is no manifest: it needs "format": "{FORMAT}" and a list `videos`')
    faults: list[str] = []
    clips: dict[str, dict[ShotKey, Clip]] = {}
    for number, entry in enumerate(value["videos"], 1):
        try:
            key, found = _video(entry, path.parent, stories)
        except ValueError as error:
            faults.append(f"{path.name}: video {number}: {error}")
            continue
        if entry.get("proposal"):
            faults.append(f"{path.name}: video {number}: {UNCHECKED}")
        there = clips.setdefault(key, {})
        faults += [f"{path.name}: video {number}: {s.stem} is declared twice" for s in found if s in there]
        clips[key] = {**found, **there}
    return Submission(
        method=str(method or value.get("method") or path.resolve().parent.name),
        clips=dict(sorted(clips.items())),
        missing=missing_shots(clips, stories),
        faults=tuple(faults),
    )


def _video(entry: Any, folder: Path, stories: Mapping[str, Story]) -> tuple[str, dict[ShotKey, Clip]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise ValueError("needs `path`, the file of the video")
    key = resolve_story(str(entry.get("story")), stories)
    if key is None:
        raise ValueError(f"no story of the benchmark is called {entry.get('story')!r}")
    shots = [s.key for s in stories[key].shots if "scene" not in entry or s.key.scene == entry["scene"]]
    if not shots:
        raise ValueError(f"the script of {key} has no scene {entry['scene']!r}")
    file = folder / entry["path"]
    ranges = _ranges(entry, file)
    if len(ranges) != len(shots):
        what = f"{key}, scene {entry['scene']}," if "scene" in entry else key
        declared = counted(len(ranges), "shot is", "shots are")
        raise ValueError(f"{declared} declared, but {what} has {len(shots)}")
    return key, {s: Clip(path=file, start=a, end=b) for s, (a, b) in zip(shots, ranges, strict=True)}


def _ranges(entry: Mapping[str, Any], file: Path) -> list[tuple[int, int]]:
    if "cuts" in entry:
        from benchmark.submission import video_facts

        if "shots" in entry or not _whole(entry["cuts"]):
            raise ValueError("give either `shots`, pairs of frames, or `cuts`, frames")
        facts = video_facts(file)
        if isinstance(facts, str):
            raise ValueError(facts)
        return ranges_of_cuts(entry["cuts"], facts.frames)
    shots = entry.get("shots")
    if not isinstance(shots, list) or not all(_whole(s) and len(s) == 2 for s in shots):
        raise ValueError("needs `shots`, a list of [first frame, frame after the last]")
    for i, (start, end) in enumerate(shots):
        if start < 0 or end <= start:
            raise ValueError(f"range [{start}, {end}] is empty or negative")
        if i and start < shots[i - 1][1]:
            raise ValueError(f"range [{start}, {end}] begins before the one before it ends")
    return [(start, end) for start, end in shots]


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int for v in value)
