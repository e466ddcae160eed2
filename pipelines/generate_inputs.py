"""What `memento generate` reads: story scripts, reference pictures, and the folders it may write into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from curation.engine.stage import StopRun
from curation.stories.script import NOTE, StoryError, StoryScript, read_story
from pipelines.story_command import STYLES, printable

if TYPE_CHECKING:
    from memento_model.story.plan import GenerateSettings

ENDINGS = (".json", ".json5")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of what is taken from a folder of reference pictures."""
MARKER = "run.json"
"""By this file a folder is known as ours."""


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

    Args:
        paths: files, or folders of them, which are taken in order of their names.
        settings: with the size.

    Raises:
        StopRun: a file is no picture, or a folder has none.
    """
    if not paths:
        return None
    import numpy as np
    from PIL import Image, ImageOps

    from memento_model.story.video import from_pixels

    size = (settings.grid.width, settings.grid.height)
    made = []
    for path in _pictures(paths):
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
                made.append(np.asarray(ImageOps.fit(upright, size, Image.Resampling.LANCZOS)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise StopRun(f"--reference {path}: no picture that can be read ({error})") from error
    return from_pixels(np.stack(made)).transpose(0, 1)


def _pictures(paths: Sequence[Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        if not found:
            raise StopRun(f"--reference {path}: no pictures ({', '.join(PICTURES)}) in this folder")
        yield from found


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
