"""`memento stbench`: the benchmark's story scripts: how to get them, what is here, what is wrong with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmark.characters import CharacterMapError, character_map_value, read_character_map
from benchmark.ranges import FORMAT, propose_ranges
from benchmark.report.results import write_text
from benchmark.stories import (
    CONTINUATION,
    CUT,
    UNKNOWN,
    Story,
    load_stories,
    near_stories,
    resolve_story,
    script_files,
)
from benchmark.words import counted
from curation.engine.stage import StopRun
from curation.optional import own_command
from curation.stories.script import MEMENTO
from pipelines.benchmark_inputs import STBENCH

STORIES = (
    "artist", "astronaut", "bean", "black", "cat", "daiyu", "dog", "elon", "explorer", "gump",
    "harry", "jane", "japan", "jobs", "little_prince", "little_sheldon", "mermaid", "monkey_king",
    "neo", "phd", "princess", "qin", "queen", "robinson", "robot", "sama_gpu", "santa",
    "superman", "titanic", "vangogh",
)  # fmt: skip
"""The thirty of ST-Bench: those in StoryMem's repository."""
OBTAIN = """\
The thirty scripts of ST-Bench are not part of this project: they are published under their own terms.

  original prompts, 30 stories (S-Lab License 1.0: not for commercial use):
    git clone --depth 1 https://github.com/Kevin-thu/StoryMem
    mkdir -p {folder} && cp StoryMem/story/*.json {folder}/

  prompts as Memento rewrote them, 15 of the stories:
    git clone --depth 1 https://github.com/ernie-research/Memento
    mkdir -p {folder}-memento && cp Memento/infer_stories/*.json {folder}-memento/

Then: memento stbench show {folder}
Scores against the two kinds of prompts do not compare: keep them in two folders."""


def how_to_obtain() -> None:
    """Say where the scripts are to be had, and how to put them where they are looked for."""
    _console().print(OBTAIN.format(folder=STBENCH))


def show(paths: Sequence[Path]) -> None:
    """A line for each story, what is missing of the thirty, and how many faults there are.

    Raises:
        StopRun: no story that can be used.
    """
    console, (stories, faults) = _console(), _loaded(paths)
    Console().print(stories_table(stories))
    console.print(totals(stories))
    forms = {story.source for story in stories.values()}
    if len(forms) > 1:
        console.print(
            "note: both encodings are mixed here: scores against text do not compare", style="yellow"
        )
    absent = [key for key in STORIES if key not in stories]
    if len(stories) > 1 and 0 < len(absent) < len(STORIES):
        there = len(STORIES) - len(absent)
        told = "1 is here" if there == 1 else f"{there} are here"
        console.print(f"Of ST-Bench's thirty {told}; not here: {', '.join(absent)}")
    if faults := _serious(faults):
        told = counted(len(faults), "fault was", "faults were")
        console.print(f"{told} mended or left out: memento stbench check tells each")


def check(paths: Sequence[Path]) -> bool:
    """A line for each fault, notes included.

    Returns:
        Whether every file can be used.

    Raises:
        StopRun: no story that can be used.
    """
    console, (stories, faults) = _console(), _loaded(paths)
    for fault in faults:
        console.print(fault, style="dim" if ": note: " in fault else "yellow")
    files = sum(len(script_files(path)) if path.is_dir() else 1 for path in paths or [STBENCH])
    usable = f"{len(stories)} of {counted(files, 'file')} can be used"
    console.print(f"{usable}; {counted(len(_serious(faults)), 'fault')}")
    return len(stories) == files


def characters(paths: Sequence[Path], output: Path | None, checked: Path | None) -> None:
    """Write a character map to review, or check a reviewed one.

    Raises:
        StopRun: the file exists, or the map has faults, a line for each.
    """
    console, (stories, _) = _console(), _loaded(paths)
    if checked is not None:
        try:
            found = read_character_map(checked, stories)
        except CharacterMapError as error:
            raise StopRun(str(error)) from error
        for key, cast in found.characters.items():
            by = found.reviewers.get(key, "nobody yet")
            console.print(f"{key}: {', '.join(f'{n} ({len(s)})' for n, s in cast.items())}; reviewed by {by}")
        if absent := sorted(stories.keys() - found.characters.keys()):
            console.print(f"note: not in the map: {', '.join(absent)}", style="yellow")
        return
    text = json.dumps(character_map_value(stories), indent=1, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
        return
    if output.exists():
        raise StopRun(f"{output} exists: name another file, or check it with --map {output}")
    write_text(output, text)
    bare = sorted(key for key, story in stories.items() if not story.characters())
    told = counted(len(stories), "story", "stories")
    console.print(f"{output}: {told}, from the tags in the prompts; look through every one")
    if bare:
        console.print(f"note: no tags, so nobody is listed: {', '.join(bare)}", style="yellow")


def ranges(film: Path, paths: Sequence[Path], story: str, scene: int | None, output: Path | None) -> None:
    """Propose which frames of a film are which shot, as a ranges.json for a person to check.

    Args:
        film: the video.
        paths: scripts, or folders of them.
        story: name of the story; empty where the film's name says it.
        scene: number, if the film is of one scene; None for the whole story.
        output: the file to write; None prints it.

    Raises:
        StopRun: no such film, story or scene, or the file exists.
    """
    from benchmark.submission import Clip
    from benchmark.weight_free import measure_clips
    from curation.video.decode import BadInput

    console, (stories, _) = _console(), _loaded(paths)
    if not film.is_file():
        raise StopRun(f"{film}: no such file; give the film of the shots")
    if output is not None and output.exists():
        raise StopRun(f"{output} exists: name another file, or remove it first")
    key = _meant(film, story, stories)
    shots = [shot.key for shot in stories[key].shots if scene is None or shot.key.scene == scene]
    if not shots:
        raise StopRun(f"--scene {scene}: the script of {key} has no such scene")
    try:
        with console.status("looking for cuts"):
            (found,) = measure_clips([Clip(path=film)])
        proposed, told = propose_ranges(found.inner_cuts, found.frames, len(shots), round(found.fps / 2))
    except (BadInput, ValueError) as error:
        raise StopRun(f"{film}: {getattr(error, 'detail', '') or error}") from error
    where = film.resolve()
    path = os.path.relpath(where, (output or Path("ranges.json")).resolve().parent)
    entry = {"path": Path(path).as_posix(), "story": key, **({} if scene is None else {"scene": scene})}
    entry |= {"proposal": told, "shots": [list(one) for one in proposed]}
    text = json.dumps({"format": FORMAT, "videos": [entry]}, indent=1) + "\n"
    text = re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)
    if output is None:
        print(text, end="")
        return
    write_text(output, text)
    console.print(f"{output}: {key}: a proposal, not a measurement: {told}")
    cuts = set(found.inner_cuts)
    for shot, (start, end) in zip(shots, proposed, strict=True):
        how = "" if not start else "   at a cut" if start in cuts else "   no cut was found here"
        console.print(f"  {shot.stem}   {start:5} to {end:5}   from {start / found.fps:6.2f} s{how}")
    if rest := [str(cut) for cut in found.inner_cuts if cut not in {start for start, _ in proposed}]:
        console.print(f"Cuts at other frames: {', '.join(rest)}")
    console.print(
        f"Look at these frames, correct {output}, and remove the line `proposal` from it. Then:\n"
        f"  {own_command('eval')} NAME={output} --stories {paths[0] if paths else STBENCH}"
    )


def _meant(film: Path, story: str, stories: Mapping[str, Story]) -> str:
    """Key of the story that a film is of.

    Raises:
        StopRun: no story is called so, or the film's name tells none or several.
    """
    if story:
        if (key := resolve_story(story, stories)) is None:
            near = near_stories(story, stories) or sorted(stories)
            raise StopRun(f"--story {story}: no such story; there are {', '.join(near)}")
        return key
    if len(stories) == 1:
        return next(iter(stories))
    near = near_stories(film.stem, stories)
    if len(near) == 1:
        return near[0]
    told = f"it may be {' or '.join(near)}" if near else f"there are {', '.join(sorted(stories))}"
    raise StopRun(f"{film}: its name does not say whose film it is: add --story NAME; {told}")


def audit(paths: Sequence[Path]) -> None:
    """How much of each prompt a text tower of 32 tokens reads.

    Raises:
        StopRun: the tokenizer is not here.
    """
    from benchmark.encoders.tokenizer import tokenize
    from benchmark.prompts import audit as audited

    console, (stories, _) = _console(), _loaded(paths)
    table = Table("story", "prompts cut", "read", "of shot captions", "different texts")
    lines: list[str] = []
    for key, story in stories.items():
        found = audited(story, tokenize)
        seen = list(found.shots.values())
        shots = [v.shot_seen / v.shot_tokens for v in seen if v.shot_tokens and v.shot_seen is not None]
        table.add_row(
            key, f"{sum(v.seen < v.tokens for v in seen)} of {len(seen)}",
            f"{sum(v.share for v in seen) / len(seen):.0%}",
            f"{sum(shots) / len(shots):.0%}" if shots else "-",
            f"{found.distinct} of {len(seen)}",
        )  # fmt: skip
        lines += found.lines(key)
    Console().print(table)
    for line in lines:
        console.print(line, style="dim")


def stories_table(stories: Mapping[str, Story]) -> Table:
    """A line for each story."""
    table = Table("story", "prompts", "scenes", "shots", "cuts", "goes on", "overview", "tags")
    for key, story in stories.items():
        joins = [pair.kind for pair in story.adjacent_shots()]
        unknown = f" (+{joins.count(UNKNOWN)}?)" if UNKNOWN in joins else ""
        table.add_row(
            key, "rewritten" if story.source == MEMENTO else "original", str(len(story.scenes)),
            str(len(story.shots)), str(joins.count(CUT)) + unknown, str(joins.count(CONTINUATION)),
            "yes" if story.overview else "none", str(len(story.characters())),
        )  # fmt: skip
    return table


def totals(stories: Mapping[str, Story]) -> str:
    """`30 stories, 95 scenes, 300 shots, 65 changes of scene, 81 cuts and 124 continuations in scenes`."""
    kinds = [pair.kind for story in stories.values() for pair in story.adjacent_shots()]
    changes = sum(len(list(story.adjacent_scenes())) for story in stories.values())
    return (
        f"{counted(len(stories), 'story', 'stories')}, "
        f"{counted(sum(len(s.scenes) for s in stories.values()), 'scene')}, "
        f"{counted(sum(len(s.shots) for s in stories.values()), 'shot')}, "
        f"{counted(changes, 'change of scene', 'changes of scene')}, "
        f"{counted(kinds.count(CUT), 'cut')} and "
        f"{counted(kinds.count(CONTINUATION), 'continuation')} in scenes"
    )


def _loaded(paths: Sequence[Path]) -> tuple[dict[str, Story], list[str]]:
    for path in paths:
        if not path.exists():
            raise StopRun(f"{path}: no such file or folder; `memento stbench` tells how to get the scripts")
    if not paths and not STBENCH.is_dir():
        raise StopRun(
            f"no folder {STBENCH} here; name one, or see `memento stbench` for how to get the scripts"
        )
    stories, faults = load_stories(paths or [STBENCH])
    if not stories:
        raise StopRun(f"no story script can be used: {'; '.join(faults[:3])}")
    return stories, faults


def _serious(faults: Sequence[str]) -> list[str]:
    return [fault for fault in faults if ": note: " not in fault]


def _console() -> Console:
    return Console(soft_wrap=True, markup=False, highlight=False)
