"""`memento generate`: story scripts to films, shot by shot, with a page for each."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from curation.engine.stage import StopRun
from curation.stories.script import NOTE, StoryError, StoryScript, as_json, read_story
from pipelines.story_command import STYLES, printable

if TYPE_CHECKING:
    import numpy as np

    from memento_model.story.loading import Loaded
    from memento_model.story.page import StoryPage
    from memento_model.story.plan import GenerateSettings, ShotPlan

OUTPUT = Path("out/generate")
ENDINGS = (".json", ".json5")
MARKER = "run.json"
PREVIEWS = 8
"""Previews of a shot on its way."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asks for besides the model.

    Attributes:
        stories: files, or folders of them; empty for the story that ships with the product.
        output: gets a folder for each story.
        mode: memento, storymem or wan.
        references: pictures to remember before the first shot.
        seed, steps, guidance: None is the default.
        size: `HEIGHTxWIDTH`.
        frames: of a shot.
        shots: make only so many.
        settings: further settings and switches by name.
    """

    stories: Sequence[Path] = ()
    output: Path = OUTPUT
    mode: str = "memento"
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
    """
    from curation.optional import require

    console = console or Console(soft_wrap=True, markup=False, highlight=False)
    stories = read_stories(order.stories, console)
    for package in ("torch", "safetensors", "diffusers", "peft", "ftfy"):
        require(package, extra="train")
    from pipelines.generate_settings import compat_of, settings_of

    settings_of(order, None)  # a wrong setting is told before weights are read
    folders = [order.output / story.folder for story in stories]
    for folder in folders:
        check_folder(folder)
    with console.status("loading the model") if console.is_terminal else nullcontext():
        loaded = _load(order, named or {}, compat_of(order))
        settings = settings_of(order, loaded)
        references = read_references(order.references, settings)
    for name, value in loaded.facts.items():
        console.print(f"{name}: {value}", style="dim")
    for line in loaded.warnings:
        console.print(f"note: {line}", style="yellow")
    films = []
    for story, folder in zip(stories, folders, strict=True):
        films.append(_generate(story, folder, order, loaded, settings, references, console))
    return films


def _load(order: Order, named: Mapping[str, Any], compat: Mapping[str, Any]) -> Loaded:
    import torch

    from memento_model.checkpoints.choice import ModelChoice
    from memento_model.story.loading import load

    mode: Any = order.mode  # checked before
    loaded = load(ModelChoice(**named), mode, compat)
    if str(loaded.models.device) == "cpu" and loaded.models.config.width < SMALL_WIDTH:
        # Sharing tiny products between threads costs more than it gains, above all on a busy machine; and
        # one thread adds up in the same order everywhere.
        torch.set_num_threads(1)
    return loaded


SMALL_WIDTH = 512
"""Models narrower than this compute on one thread."""


# -- what is asked for --------------------------------------------------------------------------------


def read_stories(paths: Sequence[Path], console: Console) -> list[StoryScript]:
    """The stories of all files, with a line for each fault.

    Raises:
        StopRun: a file is not there or cannot be used, or two stories have one name.
    """
    files = list(story_files(paths))
    stories: dict[str, tuple[Path, StoryScript]] = {}
    bad = 0
    for file in files:
        shown = printable(str(file))
        try:
            story = read_story(file)
            faults: Sequence[Any] = story.faults
        except StoryError as error:
            story, faults, bad = None, error.faults, bad + 1
        for fault in faults:
            if fault.level != NOTE:
                console.print(f"{shown}: {printable(str(fault))}", style=STYLES[fault.level])
        if story is not None and story.folder in stories:
            other = printable(str(stories[story.folder][0]))
            raise StopRun(
                f"{shown} and {other} would share the folder {story.folder!r}: rename one of the files"
            )
        if story is not None:
            stories[story.folder] = file, story
    if bad:
        raise StopRun(f"{bad} of {len(files)} stories cannot be used; nothing was generated")
    return [story for _, story in stories.values()]


def story_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they are, folders as the scripts in them; the product's own story if nothing is named."""
    if not paths:
        import memento_model

        yield Path(memento_model.__file__).parent / "story" / "scripts" / "demo.json"
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.suffix in ENDINGS and file.is_file())
        if not found:
            raise StopRun(f"{path}: no story scripts (*.json) in this folder")
        yield from found


def read_references(paths: Sequence[Path], settings: GenerateSettings) -> Any:
    """Pictures as a tensor [n, 3, h, w] in [-1, 1]: scaled to cover the shot, the middle cut out; or None.

    Raises:
        StopRun: a file is no picture.
    """
    if not paths:
        return None
    import numpy as np
    from PIL import Image, ImageOps

    from memento_model.story.video import from_pixels

    size = (settings.grid.width, settings.grid.height)
    made = []
    for path in paths:
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
                made.append(np.asarray(ImageOps.fit(upright, size, Image.Resampling.LANCZOS)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise StopRun(f"--reference {path}: no picture that can be read ({error})") from error
    return from_pixels(np.stack(made)).transpose(0, 1)


def check_folder(folder: Path) -> None:
    """Refuse a folder with other people's files in it.

    Raises:
        StopRun: it is not empty and not ours, or no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise StopRun(f"{folder}: is a file; choose another folder with --output")
    try:
        ours = not folder.exists() or (folder / MARKER).is_file()
        ours = ours or all(path.name.startswith(".") for path in folder.iterdir())
    except OSError as error:
        raise StopRun(f"{folder}: cannot be read ({error.strerror})") from error
    if not ours:
        raise StopRun(f"{folder}: not empty and not made by this tool; choose another folder with --output")


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
    console.print(f"{printable(story.story_name)}: {len(story.shots)} shots into {folder}")
    with plain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with only_run(folder):
            told = {"settings": told_settings(settings, compat), "model": dict(loaded.facts)}
            write_json(folder / MARKER, {**told, "warnings": list(loaded.warnings)})
            write_json(folder / "story.json", as_json(story))
            watcher = Progress(folder, StoryPage(folder, story, facts, Drift(loaded.embedder)), console)
            generator = StoryGenerator(loaded.models, loaded.memory(), settings, folder, watcher)
            film = generator.run(story, references, num_shots=order.shots)
            watcher.done()
    console.print(f"Film: {film}\nPage: {folder / PAGE}")
    return film


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a lock dies with its process, so nothing is left to clean up."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StopRun(f"{folder}: another run is at work here; wait for it or stop it") from error
        yield


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


class Progress:
    """A line per shot, previews, and the page; what the generator tells becomes what the user sees."""

    def __init__(self, folder: Path, page: StoryPage, console: Console) -> None:
        self._folder, self._page, self._console = folder, page, console
        self._plans: list[ShotPlan] = []
        self._finished: set[str] = set()
        self._took: list[float] = []
        self._began = 0.0
        self._status: Any = None

    def story(self, plans: Sequence[ShotPlan], aside: Sequence[str]) -> None:
        """The work begins."""
        self._plans = list(plans)
        if aside:
            told = f"{len(aside)} shots made otherwise were put aside, into {self._folder / 'earlier'}"
            self._console.print(told, style="yellow")
        self._clear_previews()

    def begin(self, plan: ShotPlan) -> None:
        """A shot is made now."""
        self._page.write(self._plans, self._finished)
        if self._console.is_terminal:
            self._status = self._console.status(f"{plan.stem}")
            self._status.start()
        self._began = time.monotonic()

    def step(self, plan: ShotPlan, number: int, steps: int, preview: Callable[[], np.ndarray]) -> None:
        """A solver step is done."""
        if self._status is not None:
            took = time.monotonic() - self._began
            left = clock(took / number * (steps - number))
            self._status.update(f"{plan.stem}: step {number} of {steps}, {left} left for this shot")
        every = max(1, steps // PREVIEWS)
        if number % every == 0 and number < steps:
            from memento_model.story.video import write_picture

            place = self._folder / "preview" / f"{plan.stem}.jpg"
            place.parent.mkdir(exist_ok=True)
            part = place.with_name(f".{place.name}")
            write_picture(part, preview())
            os.replace(part, place)
            if number == every:
                self._page.write(self._plans, self._finished, place)

    def shot(self, plan: ShotPlan, record: Mapping[str, Any], *, reused: bool) -> None:
        """A shot is done or was there already."""
        self._finished.add(plan.stem)
        place = f"{plan.index + 1}/{len(self._plans)} {plan.stem} {plan.task}"
        if reused:
            self._console.print(f"{place}: done before", style="dim")
            return
        if self._status is not None:
            self._status.stop()
            self._status = None
        self._took.append(time.monotonic() - self._began)
        left = len(self._plans) - plan.index - 1
        eta = f", about {clock(left * sum(self._took) / len(self._took))} left" if left else ""
        self._console.print(f"{place}: {clock(self._took[-1])}{eta}")
        self._clear_previews()
        self._page.write(self._plans, self._finished)

    def done(self) -> None:
        """The film is there."""
        self._clear_previews()
        self._page.write(self._plans, self._finished)

    def _clear_previews(self) -> None:
        place = self._folder / "preview"
        for path in [*place.glob("*.jpg"), *place.glob(".*.jpg")]:
            path.unlink()
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def clock(seconds: float) -> str:
    """A time for people: `1.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
