"""`memento generate`: story scripts to films, shot by shot, with a page for each."""

from __future__ import annotations

import errno
import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from curation.engine.stage import StopRun
from curation.optional import own_command
from curation.stories.script import StoryScript, as_json
from pipelines.generate_inputs import MARKER, check_folder, read_references, read_stories
from pipelines.generate_progress import Progress
from pipelines.only_run import only_run
from pipelines.story_command import printable

if TYPE_CHECKING:
    from memento_model.distributed.launch import World
    from memento_model.story.loading import Loaded
    from memento_model.story.plan import GenerateSettings

OUTPUT = Path("out/generate")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asks for besides the model.

    Attributes:
        stories: files, or folders of them; empty for the story that ships with the product.
        output: gets a folder for each story.
        mode: memento, storymem or wan; None is what the weights were trained for.
        references: pictures to remember before the first shot.
        seed, steps, guidance: None is the default.
        size: `HEIGHTxWIDTH`.
        frames: of a shot.
        shots: make only so many.
        settings: further settings and switches by name.
    """

    stories: Sequence[Path] = ()
    output: Path = OUTPUT
    mode: str | None = None
    references: Sequence[Path] = ()
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    size: str | None = None
    frames: int | None = None
    shots: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def main(order: Order, named: Mapping[str, Any] | None = None, console: Console | None = None) -> list[Path]:
    """Make the films of all stories.

    Args:
        order: what to make.
        named: fields of `memento_model.checkpoints.choice.ModelChoice`.
        console: where to tell.

    Returns:
        The films.

    Raises:
        StopRun: with one line for the user; finished shots are kept.
        CheckpointError: the model cannot be used.
        WeightsMissing: weights that are not here.
        SettingsError: a setting that does not exist or has a wrong value.
        MissingExtra: the model's packages are not installed.
        LaunchError: several processes do not fit the model, or one was lost.
    """
    from memento_model.packages import require_packages

    console = console or Console(soft_wrap=True, markup=False, highlight=False)
    if not is_first():  # what a user gets wrong is told once; torchrun ends the others then
        with _world(named or {}) as world:
            _sample_along(order, named or {}, world)
        return []
    stories = read_stories(order.stories, console)
    require_packages(say=console.print)
    from pipelines.generate_settings import may_contradict, settings_of

    settings_of(order, None)  # a wrong setting is told before weights are read
    may_contradict(order)
    for story in stories:
        check_folder(order.output / story.folder)
    with _world(named or {}) as world:
        return _make_films(order, named or {}, stories, world, console)


def _make_films(
    order: Order,
    named: Mapping[str, Any],
    stories: Sequence[StoryScript],
    world: World | None,
    console: Console,
) -> list[Path]:
    """The first process's part, which is all of it if there is but one."""
    from memento_model.story.together import dismiss
    from memento_model.story.trained import differences
    from pipelines.generate_settings import settings_of

    with console.status("loading the model") if console.is_terminal else nullcontext():
        loaded = _load(order, named, world)
        settings = settings_of(order, loaded)
        references = read_references(order.references, settings)
    differing = [*differences(settings, loaded.trained), *_against(order, settings, loaded)]
    if not order.stories and loaded.retelling:
        script, pictures = loaded.retelling
        model = f" --model {named['model']}" if named.get("model") else ""
        again = f"{own_command('generate')} {script} --reference {pictures}{model}"
        differing.append(f"see what it did learn: {again}")
    loaded = replace(loaded, warnings=(*loaded.warnings, *differing))
    for name, value in loaded.facts.items():
        console.print(f"{name}: {value}", style="dim")
    for line in loaded.warnings:
        console.print(f"note: {line}", style="yellow")
    films = []
    for story in stories:
        folder = order.output / story.folder
        films.append(_generate(story, folder, order, loaded, settings, references, console))
    dismiss(world)
    return films


def _load(order: Order, named: Mapping[str, Any], world: World | None) -> Loaded:
    from memento_model.checkpoints.choice import ModelChoice
    from memento_model.story.loading import load
    from pipelines.generate_settings import compat_of

    mode: Any = order.mode  # checked before
    loaded = load(ModelChoice(**named), mode, compat_of(order), world)
    _few_threads(loaded.models.device, loaded.models.config.width)
    return loaded


def _against(order: Order, settings: GenerateSettings, loaded: Loaded) -> list[str]:
    """Settings that contradict how the weights were trained, where the user allows it.

    Raises:
        StopRun: there are such settings, and nobody allowed them.
    """
    from memento_model.story.trained import contradictions
    from pipelines.generate_settings import AGAINST, may_contradict

    lines = contradictions(settings, loaded.models.compat, loaded.trained)
    if lines and not may_contradict(order):
        raise StopRun(
            f"{'; '.join(lines)}: leave that --set out, or add --set {AGAINST}=true to see what it makes"
        )
    return lines


def _few_threads(device: Any, width: int) -> None:
    """Tiny products on one thread: sharing them costs more than it gains, above all on a busy machine.

    One thread also adds up in the same order everywhere.
    """
    import torch

    if str(device) == "cpu" and width < SMALL_WIDTH:
        torch.set_num_threads(1)


SMALL_WIDTH = 512
"""Models narrower than this compute on one thread."""
TIMEOUT_S = 3600.0
"""The longest that a process waits for another, which may be reading weights or decoding a shot; one that has
died is noticed at once."""


# -- several processes --------------------------------------------------------------------------------


def is_first() -> bool:
    """Whether this process speaks and writes; torchrun says so in the environment."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _world(named: Mapping[str, Any]) -> Iterator[World | None]:
    """The processes that torchrun started, all at work on each shot; None for a single one.

    Raises:
        StopRun: a device was named that they cannot share.
        LaunchError: one of them was lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield None
        return
    from memento_model.distributed.launch import launched

    device = named.get("device", "auto")
    if device not in ("auto", "cpu", "cuda"):
        raise StopRun(f"--device {device}: {size} processes take a device each; use cuda or cpu")
    asked = None if device == "auto" else device
    with launched(context_parallel=size, device=asked, timeout_s=TIMEOUT_S) as world:
        yield world


def _sample_along(order: Order, named: Mapping[str, Any], world: World | None) -> None:
    """The part of every process but the first."""
    from memento_model.checkpoints.choice import ModelChoice
    from memento_model.story.loading import load_transformers
    from memento_model.story.together import follow
    from pipelines.generate_settings import compat_of

    assert world is not None, "a single process is the first"
    mode: Any = order.mode  # checked by the first
    made = load_transformers(ModelChoice(**named), mode, compat_of(order), world)
    _few_threads(world.device, made.config.width)
    follow(world, made.experts, made.first_shot)


# -- one story ----------------------------------------------------------------------------------------


def _generate(
    story: StoryScript,
    folder: Path,
    order: Order,
    loaded: Loaded,
    settings: GenerateSettings,
    references: Any,
    console: Console,
) -> Path:
    from memento_model.story.drift import Drift
    from memento_model.story.generate import StoryGenerator
    from memento_model.story.page import PAGE, PageFacts, StoryPage, told_settings

    compat = loaded.models.compat
    facts = PageFacts(settings=settings, compat=compat, model=loaded.facts, warnings=loaded.warnings)
    num = len(story.shots)
    name = textwrap.shorten(printable(story.story_name), 100, placeholder="...")
    share = f"{order.shots} of " if order.shots and order.shots < num else ""
    console.print(f"{name}: {share}{num} {'shot' if num == 1 else 'shots'} into {folder}")
    with plain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with only_run(folder):
            told = {"settings": told_settings(settings, compat), "model": dict(loaded.facts)}
            write_json(folder / MARKER, {**told, "warnings": list(loaded.warnings)})
            write_json(folder / "story.json", as_json(story))
            watcher = Progress(folder, StoryPage(folder, story, facts, Drift(loaded.embedder)), console)
            generator = StoryGenerator(loaded.models, loaded.memory(), settings, folder, watcher)
            try:
                film = generator.run(story, references, num_shots=order.shots)
                watcher.done()
            except BaseException:
                watcher.stopped()
                raise
    console.print(f"Film: {film}\nPage: {folder / PAGE}")
    return film


@contextmanager
def plain_disk_errors(folder: Path) -> Iterator[None]:
    """A full disk or a folder that cannot be written ends in one line."""
    from safetensors import SafetensorError

    again = "finished shots are kept: run the same command again to go on"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StopRun(f"disk full: no space left under {folder}; free some, {again}") from error
        told = error.strerror or str(error)
        raise StopRun(
            f"{error.filename or folder}: {told}; mend it or choose another --output, {again}"
        ) from error
    except SafetensorError as error:
        raise StopRun(f"{folder}: cannot be written ({error}); free space, {again}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
