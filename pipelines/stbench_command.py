"""`memento stbench`: the benchmark's story scripts: how to get them, what is here, what is wrong with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmark.characters import CharacterMapError, character_map_value, read_character_map
from benchmark.stories import CONTINUATION, CUT, UNKNOWN, Story, load_stories, script_files
from benchmark.words import counted
from curation.engine.stage import StopRun
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
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, output)
    bare = sorted(key for key, story in stories.items() if not story.characters())
    told = counted(len(stories), "story", "stories")
    console.print(f"{output}: {told}, from the tags in the prompts; look through every one")
    if bare:
        console.print(f"note: no tags, so nobody is listed: {', '.join(bare)}", style="yellow")


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
