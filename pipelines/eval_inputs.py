"""What `memento eval` is asked for, and what it finds: scripts, videos, and how they are to be scored."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.characters import CharacterMapError, read_character_map, told_by, with_characters
from benchmark.presets import CHOICES, PRESETS, Preset, preset
from benchmark.stories import CHARACTERS, Story, load_stories
from benchmark.submission import Submission
from benchmark.words import counted
from curation.config import SettingsError, suggestion
from curation.engine.stage import StopRun
from curation.stories.script import MEMENTO
from pipelines.benchmark_inputs import (
    GENERATED,
    STBENCH,
    MethodSpec,
    find_stories,
    nothing_found,
    of_stories,
    parse_methods,
    read_methods,
    scripts_beside,
    strange_folders,
)
from pipelines.eval_output import features_folder, output_folder

SHOWN = 6
"""Stories that are named where they are left out."""
SHORT = 0.5
"""A shot with less than this part of the frames that are usual for its method is named."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asks for.

    Attributes:
        methods: as on the command line; none is what `memento generate` left.
        stories: scripts, or folders of them.
        output: gets the report; None for a folder that is named by the methods (`eval_output`).
        preset: name.
        settings: fields of the preset, `name=value`.
        weights: `encoder=path`.
        features: folder of features; None for one below the output that was named, or below `out/eval`.
        characters: map of who is in which shot (`benchmark.characters`).
        controls: also score shuffled, reversed and frozen videos of the first method.
        random: made-up weights, to try the machinery.
        device: torch's name, or `auto`.
        workers: processes that decode and encode.
        ray: spread them over Ray.
        command: the command line, for the report.
    """

    methods: Sequence[str] = ()
    stories: Sequence[Path] = ()
    output: Path | None = None
    preset: str = "memento"
    settings: Sequence[str] = ()
    weights: Sequence[str] = ()
    features: Path | None = None
    characters: Path | None = None
    controls: bool = True
    random: bool = False
    device: str = "auto"
    workers: int = 1
    ray: bool = False
    command: str = field(default_factory=lambda: shlex.join(["memento", *sys.argv[1:]]))


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was read before anything is computed.

    Attributes:
        chosen: the preset.
        stories: those of which a method has a video.
        specs, submissions: the methods that have one.
        faults: a line each.
        generated_from: method -> `original` or `rewritten`, where its folder says it.
        output: gets the report.
        features: folder of features.
    """

    chosen: Preset
    stories: Mapping[str, Story]
    specs: Sequence[MethodSpec]
    submissions: Sequence[Submission]
    faults: Sequence[str]
    generated_from: Mapping[str, str]
    output: Path
    features: Path


def read(order: Order, console: Console) -> Given:
    """Read scripts and look at every video.

    Raises:
        StopRun, SettingsError: see `main`.
    """
    chosen = choose_preset(order.preset, order.settings)
    specs = parse_methods(order.methods) if order.methods else generated()
    output = order.output or output_folder([spec.name for spec in specs], order.preset)
    features = order.features or features_folder(order.output)
    stories, faults = find_stories(order.stories, specs)
    stories, of_map = with_map(order.characters, stories, order.stories)
    faults += of_map
    chosen, mixed = with_prompts(chosen, stories, order.settings)
    faults += mixed
    with console.status("looking at the videos"):
        submissions = read_methods(specs, stories, features)
    there = {key for submission in submissions for key in submission.clips}
    faults = of_stories(faults, stories, there)
    usable = [(spec, s) for spec, s in zip(specs, submissions, strict=True) if s.num_clips]
    for spec, submission in zip(specs, submissions, strict=True):
        if not submission.num_clips:
            faults.append(nothing_found(spec, submission, stories))
    if there and (absent := sorted(stories.keys() - there)):
        one, many = "has no video of any method and is", "have no video of any method and are"
        told = f"{len(absent)} of {len(stories)} stories {one if len(absent) == 1 else many} left out"
        shown = f": {', '.join(absent)}" if len(absent) <= SHOWN else f"; scored: {', '.join(sorted(there))}"
        faults.append(told + shown)
    for spec, submission in usable:
        faults += [f"{spec.name}: {line}" for line in strange_folders(submission, stories, spec.path)]
        faults += [f"{submission.method}: {line}" for line in (*submission.faults, *odd_lengths(submission))]
    return Given(
        chosen=chosen, stories={key: stories[key] for key in stories if key in there},
        specs=[spec for spec, _ in usable], submissions=[submission for _, submission in usable],
        faults=faults, generated_from=dict(_generated_from([spec for spec, _ in usable])),
        output=output, features=features,
    )  # fmt: skip


def with_map(
    path: Path | None, stories: Mapping[str, Story], places: Sequence[Path]
) -> tuple[dict[str, Story], list[str]]:
    """The stories with the characters of a map, and what is to be said of it, a line each.

    Args:
        path: of the map; None for none.
        stories: by key.
        places: where the scripts are from: a map that lies there and is not used is named.

    Raises:
        StopRun: the map cannot be used, a line for each error.
    """
    if path is None:
        beside = [place / CHARACTERS for place in places or [STBENCH] if (place / CHARACTERS).is_file()]
        told = "a character map that is not used; to use it: --characters"
        return dict(stories), [f"{file}: {told} {file}" for file in beside]
    try:
        found = read_character_map(path, stories, others=True)
    except CharacterMapError as error:
        raise StopRun(str(error)) from error
    if not found.characters:
        raise StopRun(f"--characters {path}: it has none of the stories: {', '.join(sorted(stories))}")
    faults = []
    if unreviewed := sorted(found.characters.keys() - found.reviewers.keys()):
        faults.append(f"{path}: nobody has put a name to {_few(unreviewed)}: add a reviewer")
    if absent := sorted(stories.keys() - found.characters.keys()):
        faults.append(f"{path}: lacks {_few(absent)}: there the tags of the prompts count")
    return with_characters(stories, found), faults


def told_of_characters(path: Path | None, stories: Mapping[str, Story]) -> list[str]:
    """A line that says who told which characters are in which shot; none without a map."""
    if path is None:
        return []
    by = Counter(told_by(story) for story in stories.values())
    return [f"Characters: {path}: {', '.join(f'{who} ({count})' for who, count in by.items())}"]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= SHOWN else f"{len(names)} stories"


def generated() -> list[MethodSpec]:
    """What `memento generate` left in its usual place.

    Raises:
        StopRun: nothing.
    """
    if not scripts_beside(GENERATED):
        raise StopRun(
            f"nothing to evaluate: no story in {GENERATED}; run `make generate` first, or name methods: "
            "memento eval name=folder --stories scripts"
        )
    return parse_methods([str(GENERATED)])


def choose_preset(name: str, settings: Sequence[str]) -> Preset:
    """A preset with changes.

    Args:
        name: of the preset.
        settings: `field=value`.

    Raises:
        SettingsError: no such preset, field or value.
    """
    if name not in PRESETS:
        raise SettingsError(f"--preset {name}: there are {', '.join(PRESETS)}{suggestion(name, [*PRESETS])}")
    types = {one.name: one.type for one in fields(Preset)}
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in CHOICES:
            raise SettingsError(
                f"--set {setting}: write choice=value; choices are {', '.join(CHOICES)}"
                f"{suggestion(key, [*CHOICES])}"
            )
        changes[key] = _typed(setting, text, str(types[key]))
    try:
        return preset(name, **changes)
    except ValueError as error:
        raise SettingsError(f"--set {' '.join(settings)}: {error}") from error


def _typed(setting: str, text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise SettingsError(f"--set {setting}: write true or false")
        return text.lower() == "true"
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise SettingsError(f"--set {setting}: write a whole number") from None
    return text.replace("\\n", "\n")


def with_prompts(
    chosen: Preset, stories: Mapping[str, Story], settings: Sequence[str]
) -> tuple[Preset, list[str]]:
    """The preset with the kind of prompts that the scripts hold, as part of the recipe; and a line if both.

    Raises:
        StopRun: the user asked for other prompts than the scripts hold.
    """
    forms = {"rewritten" if story.source == MEMENTO else "original" for story in stories.values()}
    if len(forms) > 1:
        return chosen, [
            "the scripts hold original and rewritten prompts: scores against text do not compare between "
            "such stories; give scripts of one encoding with --stories"
        ]
    (told,) = forms
    if any(setting.startswith("prompts=") for setting in settings) and chosen.prompts != told:
        raise StopRun(f"--set prompts={chosen.prompts}: the scripts given hold {told} prompts; give others")
    return replace(chosen, prompts=told), []


def odd_lengths(submission: Submission) -> Iterator[str]:
    """A line for each shot that is much shorter than the method's others: perhaps it was cut off."""
    lengths = {
        f"{key} {shot.stem}": clip.num_frames
        for key, shots in submission.clips.items()
        for shot, clip in shots.items()
    }
    usual = statistics.median(lengths.values())
    for place, count in lengths.items():
        if count < SHORT * usual:
            told = f"{counted(count, 'frame')} where {usual:.0f} are usual"
            yield f"{place}: {told}: scored as it is; was it cut off?"


def _generated_from(specs: Sequence[MethodSpec]) -> Iterator[tuple[str, str]]:
    for spec in specs:
        scripts, _ = load_stories(scripts_beside(spec.path))
        if len(forms := {story.source for story in scripts.values() if story.source}) == 1:
            yield spec.name, forms.pop()
