"""The texts that a vision-language model is asked with: files with placeholders, ours or the user's.

A placeholder is a name in braces, `{label}`; other braces are ordinary text. What is put in is never looked
at again, so nothing that a model or a film says can become a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curation.engine.store import digest

OURS = Path(__file__).with_name("prompt_files")
STAGES = ("story", "shot", "recon")

# file: (placeholders it must have, further ones it may have)
PLACEHOLDERS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "system": (frozenset(), frozenset()),
    "facts": (frozenset({"shots"}), frozenset({"num_shots", "seconds", "labels", "drawn"})),
    "story": (frozenset(), frozenset({"labels", "min_chars", "max_chars", "description_max_chars"})),
    "shot": (
        frozenset({"number", "inventory", "visible"}),
        frozenset({"story", "start", "end", "prominent", "min_chars", "max_chars"}),
    ),
    "recon": (
        frozenset({"label"}),
        frozenset(
            {"description", "others", "number", "time", "story", "inventory", "min_chars", "max_chars"}
        ),
    ),
    "repair": (frozenset({"faults"}), frozenset({"answer"})),
}
_PLACEHOLDER = re.compile(r"\{([a-z][a-z_]*)\}")


@dataclass(frozen=True)
class Prompts:
    """Checked texts by name: system, facts, story, shot, recon and repair."""

    texts: Mapping[str, str]

    def hash(self, stage: str) -> str:
        """Hash of every text that requests of a stage are made of."""
        return digest({name: self.texts[name] for name in ("system", "facts", stage, "repair")})

    def fill(self, name: str, **values: object) -> str:
        """The text `name` with its placeholders replaced, without space around it."""
        return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), self.texts[name]).strip()


def load_prompts(folder: str | None = None) -> Prompts:
    """Our prompts, or the user's with ours for files that are left out.

    Args:
        folder: holds `system.txt`, `facts.txt`, `story.txt`, `shot.txt`, `recon.txt`, `repair.txt`, or some
            of these.

    Raises:
        ValueError: no such folder, a file that has no use, or a text that is empty, unreadable or has the
            wrong placeholders.
    """
    texts = {name: _read(OURS / f"{name}.txt") for name in PLACEHOLDERS}
    if folder is not None:
        texts |= _theirs(Path(folder).expanduser())
    return Prompts(texts)


def _theirs(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise ValueError(f"prompts: {folder} is not a folder")
    files = {file.stem: file for file in sorted(folder.glob("*.txt"))}
    names = ", ".join(f"{name}.txt" for name in PLACEHOLDERS)
    if unknown := [file.name for name, file in files.items() if name not in PLACEHOLDERS]:
        raise ValueError(f"prompts: {folder / unknown[0]} has no use; the files are {names}")
    if not files:
        raise ValueError(f"prompts: {folder} holds none of {names}")
    return {name: _checked(name, file) for name, file in files.items()}


def _checked(name: str, file: Path) -> str:
    text = _read(file)
    if not text.strip():
        raise ValueError(f"prompts: {file} is empty; leave the file out to use ours")
    used = set(_PLACEHOLDER.findall(text))
    must, may = PLACEHOLDERS[name]
    if unknown := sorted(used - must - may):
        known = ", ".join(f"{{{p}}}" for p in sorted(must | may)) or "none"
        raise ValueError(f"prompts: {file} has the placeholder {{{unknown[0]}}}; known here: {known}")
    if missing := sorted(must - used):
        raise ValueError(f"prompts: {file} lacks the placeholder {{{missing[0]}}}")
    return text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts: {file} cannot be read as UTF-8 text ({error})") from error
