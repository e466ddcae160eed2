"""What the benchmark's commands are given: story scripts, and methods as `name=folder:layout`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.extraction.looking import look_at
from benchmark.ranges import read_ranges
from benchmark.stories import Story, bare_name, load_stories, near_stories, resolve_story
from benchmark.submission import (
    LAYOUTS,
    NO_SHOT_NAME,
    NO_STORY,
    Submission,
    SubmissionError,
    probed,
    read_folder,
)
from benchmark.words import counted
from curation.engine.stage import StopRun
from curation.optional import own_command

STBENCH = Path("stbench")
"""Where the scripts are looked for if nobody says where."""
GENERATED = Path("out/generate")
"""Where `memento generate` leaves its stories; as a method they are `generated`, however they are named."""
SHOWN_STORIES = 8
"""Stories that are named where a folder bears the name of none."""
STORY_FILE = "story.json"
"""The script that `memento generate` leaves beside the shots."""


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A method on the command line.

    Attributes:
        name: for tables; the folder's if not given.
        path: folder of its videos, or a manifest of frame ranges (.json).
        layout: one of `benchmark.submission.LAYOUTS`, or a template.
    """

    name: str
    path: Path
    layout: str = "memento"


def parse_methods(texts: Sequence[str]) -> list[MethodSpec]:
    """Methods from `name=folder`, `folder`, `name=folder:layout` or `name=ranges.json`.

    Raises:
        StopRun: no such folder or file, or two methods of one name.
    """
    specs = [_spec(text) for text in texts]
    names = [spec.name for spec in specs]
    for spec in specs:
        if names.count(spec.name) > 1:
            raise StopRun(f"two methods are called {spec.name!r}: write name=folder to tell them apart")
    return specs


def _spec(text: str) -> MethodSpec:
    name, equals, rest = text.partition("=")
    if not equals or "/" in name:
        name, rest = "", text
    path, layout = Path(rest).expanduser(), "memento"
    if not path.exists() and ":" in rest:
        folder, _, layout = rest.partition(":")
        path = Path(folder).expanduser()
    if not path.exists():
        raise StopRun(f"{path}: no such folder; write name=folder, name=folder:layout or name=ranges.json")
    if path.is_file() and path.suffix != ".json":
        told = (
            f"{path}: is a file; give the folder of the shots, or, if it holds several shots, a ranges.json"
        )
        raise StopRun(
            f"{told} (docs/evaluate.md): {own_command('stbench ranges')} {path} proposes one to be checked"
        )
    if not name and path.resolve() == GENERATED.resolve():
        name = "generated"
    name = name or (path.resolve().parent.name if path.is_file() else path.resolve().name)
    if not re.fullmatch(r"[^\x00-\x1f/\\]+", name):
        raise StopRun(f"{name!r} cannot be a method's name: no slashes and no control characters")
    return MethodSpec(name=name, path=path, layout=layout)


def find_stories(
    paths: Sequence[Path], specs: Sequence[MethodSpec] = ()
) -> tuple[dict[str, Story], list[str]]:
    """The story scripts, and a line for each fault.

    Args:
        paths: files or folders; if none, the scripts beside the methods' shots, else `stbench/`.
        specs: the methods.

    Raises:
        StopRun: there is no script that can be used.
    """
    for path in paths:
        if not path.exists():
            raise StopRun(f"--stories {path}: no such file or folder; see `memento stbench`")
    if not paths and (beside := [file for spec in specs for file in scripts_beside(spec.path)]):
        stories, faults = _beside(beside)
    elif chosen := list(paths) or ([STBENCH] if STBENCH.is_dir() else []):
        stories, faults = load_stories(chosen)
    else:
        raise StopRun(
            "no story scripts: give them with --stories FOLDER; `memento stbench` tells how to get ST-Bench's"
        )
    if not stories:
        raise StopRun(f"no story script can be used: {'; '.join(faults[:3])}")
    return stories, [fault for fault in faults if ": note: " not in fault]


def scripts_beside(folder: Path) -> list[Path]:
    """Scripts that `memento generate` left in a folder of stories, or in a story's own."""
    if (folder / STORY_FILE).is_file():
        return [folder / STORY_FILE]
    return sorted(folder.glob(f"*/{STORY_FILE}")) if folder.is_dir() else []


def _beside(files: Sequence[Path]) -> tuple[dict[str, Story], list[str]]:
    """Stories under the names of their folders; the first of several methods' scripts of a story counts."""
    found: dict[str, Story] = {}
    faults: list[str] = []
    for file in files:
        folder = file.resolve().parent.name
        loaded, told = load_stories([file])
        faults += [fault.replace(STORY_FILE, f"{folder}/{STORY_FILE}", 1) for fault in told]
        for story in loaded.values():
            key = bare_name(folder)
            found.setdefault(key, replace(story, key=key, aliases=story.aliases | {folder}))
    return dict(sorted(found.items())), list(dict.fromkeys(faults))


def read_methods(
    specs: Sequence[MethodSpec], stories: Mapping[str, Story], features: Path | None = None
) -> list[Submission]:
    """The methods' videos, every file looked at.

    Args:
        specs: the methods.
        stories: by key.
        features: folder that remembers the facts of files which have not changed.

    Raises:
        StopRun: a manifest or a layout that cannot be read.
    """
    found = []
    for spec in specs:
        try:
            if spec.path.is_file():
                submission = read_ranges(spec.path, stories, method=spec.name)
            else:
                submission = read_folder(spec.path, stories, layout=spec.layout, method=spec.name)
        except SubmissionError as error:
            raise StopRun(str(error)) from error
        found.append(look_at(submission, stories, features) if features else probed(submission, stories))
    return found


def of_stories(faults: Sequence[str], stories: Mapping[str, Story], there: Collection[str]) -> list[str]:
    """What is said of scripts, without what concerns stories that nobody has a video of.

    What such scripts lack moves no number; `memento stbench check` says it.
    """
    absent = stories.keys() - set(there)
    return [fault for fault in faults if bare_name(Path(fault.partition(": ")[0]).stem) not in absent]


def strange_folders(submission: Submission, stories: Mapping[str, Story], root: Path) -> list[str]:
    """A line for each folder that bears no story's name and holds videos, with the stories that may be meant.

    Args:
        submission: of the method.
        stories: by key.
        root: its folder: its own name counts where videos lie in it directly.
    """
    folders = Counter(
        name.rpartition("/")[0].split("/")[0] if "/" in name else root.resolve().name
        for name, reason in submission.ignored
        if reason.startswith((NO_STORY, NO_SHOT_NAME))
    )
    lines = []
    for folder, count in folders.items():
        near = near_stories(folder, stories)
        if resolve_story(folder, stories) is None and near:
            told = f"{folder} ({counted(count, 'video')}) bears no story's name"
            lines.append(
                f"{told}; if it is {' or '.join(near)}, rename the folder, or map it in a ranges.json"
            )
    return lines


def nothing_found(spec: MethodSpec, submission: Submission, stories: Mapping[str, Story]) -> str:
    """Why a method has no shot, and what to try; one line."""
    if submission.faults:
        more = f" (and {len(submission.faults) - 1} more)" if len(submission.faults) > 1 else ""
        return f"{spec.name}: no shot can be used: {submission.faults[0]}{more}"
    for layout in dict.fromkeys(LAYOUTS.values()) if spec.path.is_dir() else ():
        other = read_folder(spec.path, stories, layout=layout, method=spec.name)
        if other.num_clips:
            name = next(name for name, template in LAYOUTS.items() if template == layout)
            told = f"{counted(other.num_clips, 'file fits', 'files fit')} the layout {layout}"
            return f"{spec.name}: no shot found, but {told}: write {spec.name}={spec.path}:{name}"
    why = "no video below it"
    if submission.ignored:
        name, reason = submission.ignored[0]
        why = (
            f"{counted(len(submission.ignored), 'video is no shot', 'videos are no shots')}: {name}: {reason}"
        )
        if strange := strange_folders(submission, stories, spec.path):
            return (
                f"{spec.name}: no shot found in {spec.path}: {why}. {'. '.join(strange)} (docs/evaluate.md)"
            )
        if reason.startswith(NO_STORY):
            some = ", ".join(sorted(stories)[:SHOWN_STORIES])
            more = f" and {len(stories) - SHOWN_STORIES} more" if len(stories) > SHOWN_STORIES else ""
            why += f": a story's folder bears its name ({some}{more})"
        why += (
            "; name the layout, such as NAME=FOLDER:{story}/shot_{index}.mp4, or for videos of several "
            "shots write ranges.json (docs/evaluate.md, Methods)"
        )
    return f"{spec.name}: no shot found in {spec.path}: {why}"
