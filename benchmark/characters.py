"""The reviewed character map: who appears in which shot, decided by a person.

    {"format": "memento-characters/1",
     "stories": {"robinson": {"reviewer": "initials", "characters": {"Person A": ["01_01", "01_02"]}}}}

Tags of the rewritten scripts miss protagonists and the original scripts have none, so groups by character are
only as good as this map.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.stories import TAGS, ShotKey, Story
from curation.captions.grammar import labels

FORMAT = "memento-characters/1"
MAP = "map"
"""How the words begin that name a map as the source of who is in which shot (`told_by`)."""
_STEM = re.compile(r"(\d+)_(\d+)")


class CharacterMapError(ValueError):
    """A character map cannot be used; a line for each error."""


@dataclass(frozen=True, kw_only=True)
class CharacterMap:
    """Character -> shots for each story, and who reviewed it; `reviewers` may lack a story."""

    characters: Mapping[str, Mapping[str, tuple[ShotKey, ...]]]
    reviewers: Mapping[str, str]


def read_character_map(
    path: Path | str, stories: Mapping[str, Story], *, others: bool = False
) -> CharacterMap:
    """A map from its file, checked against the stories.

    Args:
        path: of the file.
        stories: by key.
        others: the map may have further stories, which are left out.

    Raises:
        CharacterMapError: with a line for each thing that is wrong.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CharacterMapError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise CharacterMapError(f'{path}: is no character map: it needs "format": "{FORMAT}"')
    entries = value.get("stories")
    if not isinstance(entries, dict):
        raise CharacterMapError(f"{path}: `stories` must be an object: story -> characters")
    errors: list[str] = []
    found: dict[str, Mapping[str, tuple[ShotKey, ...]]] = {}
    reviewers: dict[str, str] = {}
    for key, entry in entries.items():
        if key not in stories:
            if others:
                continue
            errors.append(f"{key}: no such story; there are {', '.join(sorted(stories)) or 'none'}")
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("characters"), dict):
            errors.append(f"{key}: needs `characters`, an object: name -> list of shots")
            continue
        found[key] = _characters(key, entry["characters"], stories[key], errors)
        if isinstance(entry.get("reviewer"), str):
            reviewers[key] = entry["reviewer"]
    if errors:
        raise CharacterMapError("\n".join(f"{path}: {error}" for error in errors))
    return CharacterMap(characters=found, reviewers=reviewers)


def with_characters(stories: Mapping[str, Story], found: CharacterMap) -> dict[str, Story]:
    """The stories with the characters of a map; those that it lacks stay as they are."""
    return {
        key: replace(story, cast=found.characters[key], reviewer=found.reviewers.get(key, ""))
        if key in found.characters
        else story
        for key, story in stories.items()
    }


def mapped(stories: Mapping[str, Story]) -> dict[str, dict[str, list[str]]]:
    """Story -> character -> shots where a map says other than the tags: a part of the recipe."""
    return {
        key: {name: [shot.stem for shot in shots] for name, shots in sorted(story.cast.items())}
        for key, story in sorted(stories.items())
        if story.cast is not None and dict(story.cast) != replace(story, cast=None).characters()
    }


def told_by(story: Story) -> str:
    """Who says which characters are in which shot, in words."""
    if story.cast is not None:
        return f"{MAP} reviewed by {story.reviewer}" if story.reviewer else f"{MAP} that nobody reviewed"
    if story.characters():
        return "tags of the prompts"
    kinds = sorted(
        {label[1:-1].partition(" ")[0] for shot in story.shots for label in labels(shot.shot_text)}
    )
    if kinds:
        return f"nobody: tags of {', '.join(kinds)}; only {', '.join(TAGS)} count without a map"
    return "nobody: no tags"


def character_map_value(stories: Mapping[str, Story]) -> dict[str, Any]:
    """A map to start a review from: what the tags say, nobody named as the reviewer."""
    entries = {
        key: {"characters": {name: [k.stem for k in keys] for name, keys in story.characters().items()}}
        for key, story in stories.items()
    }
    return {"format": FORMAT, "stories": entries}


def _characters(
    key: str, entry: Mapping[str, Any], story: Story, errors: list[str]
) -> dict[str, tuple[ShotKey, ...]]:
    declared = [shot.key for shot in story.shots]
    found = {}
    for name, stems in entry.items():
        if not isinstance(stems, list) or not stems:
            errors.append(f'{key}, {name}: give a list of shots such as ["01_01"]')
            continue
        keys = [_shot_key(stem) for stem in stems]
        wrong = [str(stem) for stem, shot in zip(stems, keys, strict=True) if shot not in declared]
        if wrong:
            errors.append(f"{key}, {name}: the script has no shot {', '.join(wrong)}")
        if len(set(keys)) < len(keys):
            errors.append(f"{key}, {name}: a shot is named twice")
        found[name] = tuple(shot for shot in declared if shot in keys)
    return found


def _shot_key(stem: Any) -> ShotKey | None:
    match = _STEM.fullmatch(stem) if isinstance(stem, str) else None
    return ShotKey(int(match[1]), int(match[2])) if match else None
