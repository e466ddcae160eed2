"""What `memento eval` is asked for, and what it finds: scripts, videos, and how they are to be scored."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.presets import CHOICES, PRESETS, Preset, preset
from benchmark.stories import Story, load_stories
from benchmark.submission import Submission
from curation.config import SettingsError, suggestion
from curation.engine.stage import StopRun
from curation.stories.script import MEMENTO
from pipelines.benchmark_inputs import (
    MethodSpec,
    find_stories,
    nothing_found,
    parse_methods,
    read_methods,
    scripts_beside,
)

OUTPUT = Path("out/eval")
GENERATED = Path("out/generate")
FEATURES = "features"
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
        output: gets the report.
        preset: name.
        settings: fields of the preset, `name=value`.
        weights: `encoder=path`.
        features: folder of features; `features` below the output if None.
        controls: also score shuffled, reversed and frozen videos of the first method.
        random: made-up weights, to try the machinery.
        device: torch's name, or `auto`.
        workers: processes that decode and encode.
        ray: spread them over Ray.
        command: the command line, for the report.
    """

    methods: Sequence[str] = ()
    stories: Sequence[Path] = ()
    output: Path = OUTPUT
    preset: str = "memento"
    settings: Sequence[str] = ()
    weights: Sequence[str] = ()
    features: Path | None = None
    controls: bool = True
    random: bool = False
    device: str = "auto"
    workers: int = 1
    ray: bool = False
    command: str = field(default_factory=lambda: shlex.join(["memento", *sys.argv[1:]]))

    @property
    def folder(self) -> Path:
        """Of features."""
        return self.features or self.output / FEATURES


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was read before anything is computed.

    Attributes:
        chosen: the preset.
        stories: those of which a method has a video.
        specs, submissions: the methods that have one.
        faults: a line each.
        generated_from: method -> `original` or `rewritten`, where its folder says it.
    """

    chosen: Preset
    stories: Mapping[str, Story]
    specs: Sequence[MethodSpec]
    submissions: Sequence[Submission]
    faults: Sequence[str]
    generated_from: Mapping[str, str]


def read(order: Order, console: Console) -> Given:
    """Read scripts and look at every video.

    Raises:
        StopRun, SettingsError: see `main`.
    """
    chosen = choose_preset(order.preset, order.settings)
    specs = parse_methods(order.methods) if order.methods else generated()
    stories, faults = find_stories(order.stories, specs)
    chosen, mixed = with_prompts(chosen, stories, order.settings)
    faults += mixed
    with console.status("looking at the videos"):
        submissions = read_methods(specs, stories, order.folder)
    usable = [(spec, s) for spec, s in zip(specs, submissions, strict=True) if s.num_clips]
    for spec, submission in zip(specs, submissions, strict=True):
        if not submission.num_clips:
            faults.append(nothing_found(spec, submission, stories))
    there = {key for _, submission in usable for key in submission.clips}
    if there and (absent := sorted(stories.keys() - there)):
        told = f"{len(absent)} of {len(stories)} stories have no video of any method and are left out"
        shown = f": {', '.join(absent)}" if len(absent) <= SHOWN else f"; scored: {', '.join(sorted(there))}"
        faults.append(told + shown)
    for _, submission in usable:
        faults += [f"{submission.method}: {line}" for line in (*submission.faults, *odd_lengths(submission))]
    return Given(
        chosen=chosen, stories={key: stories[key] for key in stories if key in there},
        specs=[spec for spec, _ in usable], submissions=[submission for _, submission in usable],
        faults=faults, generated_from=dict(_generated_from([spec for spec, _ in usable])),
    )  # fmt: skip


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
    return [MethodSpec(name="generated", path=GENERATED)]


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
            yield f"{place}: {count} frames where {usual:.0f} are usual: scored as it is; was it cut off?"


def _generated_from(specs: Sequence[MethodSpec]) -> Iterator[tuple[str, str]]:
    for spec in specs:
        scripts, _ = load_stories(scripts_beside(spec.path))
        if len(forms := {story.source for story in scripts.values() if story.source}) == 1:
            yield spec.name, forms.pop()
