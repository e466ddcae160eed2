"""`memento story`: check story scripts, write one from a concept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from curation.captions.grammar import replace_hidden
from curation.engine.stage import StopRun
from curation.models.chat import ChatClient
from curation.stories.script import (
    ERROR,
    NOTE,
    StoryFault,
    StoryScript,
    check_story,
    read_story,
    write_story,
)
from curation.stories.writer import StoryOrder, write_from_concept

STYLES = {"error": "red", "warning": "yellow", "note": "dim"}
CREATIVE = 0.7
"""Sampling temperature: a story is not the likeliest text."""


def check(files: Sequence[Path], *, strict: bool = False, notes: bool = False) -> bool:
    """Print a line for each fault and a verdict for each file.

    Args:
        files: to check.
        strict: warnings count as errors.
        notes: also print what is only worth knowing.

    Returns:
        Whether all files can be used.
    """
    console, sound = Console(soft_wrap=True, markup=False, highlight=False), True
    for file in files:
        faults = check_story(file)
        shown = printable(str(file))
        for fault in faults:
            if notes or fault.level != NOTE:
                console.print(f"{shown}: {printable(str(fault))}", style=STYLES[fault.level])
        bad = [f for f in faults if f.level == ERROR or (strict and f.level != NOTE)]
        sound = sound and not bad
        console.print(f"{shown}: {_verdict(file, faults, usable=not bad)}")
    return sound


def _verdict(file: Path, faults: Sequence[StoryFault], *, usable: bool) -> str:
    levels = [fault.level for fault in faults]
    numbers = {level: levels.count(level) for level in STYLES if level in levels}
    found = ", ".join(f"{n} {level}{'s' if n > 1 else ''}" for level, n in numbers.items()) or "no faults"
    if ERROR in levels:
        return f"cannot be used; {found}"
    story = read_story(file)
    told = f"{story.form} form, {_size(story)}; {found}"
    return told if usable else f"refused as --strict; {told}"


def _size(story: StoryScript) -> str:
    """`1 scene, 3 shots`."""
    counted = {"scene": len(story.scenes), "shot": len(story.shots)}
    return ", ".join(f"{number} {name}{'s' if number != 1 else ''}" for name, number in counted.items())


def write(order: StoryOrder, output: Path, *, endpoint: str | None, model: str | None, seed: int) -> None:
    """Have a story written and put it into a file; nothing is left behind if that fails."""
    if output.is_dir():
        raise StopRun(f"{output} is a folder: name a .json file")
    if output.exists():
        raise StopRun(f"{output} exists: name another file, or remove it first")
    client = make_client(order, endpoint, model, seed)
    try:
        written = write_from_concept(client, order)
    finally:
        client.close()
    write_story(written.story, output)
    story = written.story
    out = sum(reply.tokens_out or 0 for reply in written.replies)
    told = f"{_size(story)}, {story.form} form; {written.status}"
    Console(soft_wrap=True, markup=False, highlight=False).print(
        f"{printable(str(output))}: {printable(story.story_name)}: {told}, {out} tokens by {client.model_id}"
    )


def make_client(order: StoryOrder, endpoint: str | None, model: str | None, seed: int) -> ChatClient:
    """The server at `endpoint`, or vLLM in this process.

    Raises:
        StopRun: neither can be used; the message says what would help.
    """
    try:
        if endpoint is not None:
            from curation.models.openai_client import EndpointSettings, OpenAIClient

            return OpenAIClient(EndpointSettings(url=endpoint, model=model, temperature=CREATIVE, seed=seed))
        from curation.models.vllm_client import VllmClient, VllmSettings, obstacle

        length = 4096 + 3 * order.max_tokens  # the question, a failed answer, another one
        settings = VllmSettings(
            model=model or VllmSettings.model, max_model_len=length, temperature=CREATIVE, seed=seed
        )
    except ValueError as error:
        raise StopRun(f"memento story write: {error}") from error
    if why_not := obstacle(settings):
        raise StopRun(f"no model to ask: {why_not}; or name a server: --endpoint http://localhost:8000/v1")
    return VllmClient(settings)


def printable(text: str) -> str:
    """Any text as one line that a terminal shows as it is."""
    return replace_hidden(text, "?")
