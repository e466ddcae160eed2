"""What a story script is, in memory and in its two public encodings.

Both are JSON: `story_name`, `story_overview` and `scenes`, each with `scene_num`, `video_prompts`,
`first_frame_prompt` and `cut`, one entry per shot. The StoryMem form has plain prompts. The Memento form adds
`reconstruct_target`, a line `[Person A] look` for each character, and prompts in the grammar of captions (see
`curation.captions.grammar`).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from curation.captions.grammar import (
    GLOBAL,
    LABEL,
    compose,
    head_phrase,
    labels,
    parse_inventory,
    parse_reconstruct_target,
    split_caption,
)

STORYMEM, MEMENTO = "storymem", "memento"
FORMS = (STORYMEM, MEMENTO)
MAX_NAME_BYTES = 80
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)")


@dataclass(frozen=True, kw_only=True)
class ShotPrompt:
    """One shot of a story.

    Attributes:
        scene_num: of its scene.
        shot_num: in its scene, from 1.
        cut: it begins with a cut; else it continues from the last frame of the shot before.
        prompt: what is shown, as the file has it.
        first_frame_prompt: of its first frame; no model here reads it.
    """

    scene_num: int
    shot_num: int
    cut: bool
    prompt: str
    first_frame_prompt: str | None = None

    @property
    def stem(self) -> str:
        """Name of the shot's video without its suffix: `02_01`."""
        return f"{self.scene_num:02d}_{self.shot_num:02d}"

    @property
    def parts(self) -> tuple[str, str]:
        """(global caption, shot caption); the whole prompt twice if it is not in the caption grammar."""
        try:
            return split_caption(self.prompt)
        except ValueError:
            return self.prompt, self.prompt


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Shots in one place. `extra`: keys of the file that the format does not know."""

    scene_num: int
    shots: tuple[ShotPrompt, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoryScript:
    """A story, ready to be generated or judged.

    Attributes:
        story_name: as shown to people; never part of a path.
        scenes: in the file's order.
        story_overview: None if the file has none.
        reconstruct_target: who looks how, a line per character; None in the StoryMem form.
        key: a safe name for the story's folder, from the file's name; `0_robinson`.
        extra: keys of the file that the format does not know.
        faults: what was found and mended while the file was read.
    """

    story_name: str
    scenes: tuple[Scene, ...]
    story_overview: str | None = None
    reconstruct_target: str | None = None
    key: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Any, ...] = field(default=(), compare=False)

    @property
    def shots(self) -> tuple[ShotPrompt, ...]:
        """All shots in order."""
        return tuple(shot for scene in self.scenes for shot in scene.shots)

    @property
    def form(self) -> str:
        """`memento` or `storymem`."""
        return STORYMEM if self.reconstruct_target is None else MEMENTO

    @property
    def folder(self) -> str:
        """Safe name of the folder for what is made of the story."""
        return self.key or safe_name(self.story_name)

    @property
    def cast(self) -> list[tuple[str, str]]:
        """(label, description) of each line of `reconstruct_target` that can be read."""
        found: list[tuple[str, str]] = []
        for line in (self.reconstruct_target or "").splitlines():
            try:
                found += [p for p in parse_reconstruct_target(line) if p[0] not in dict(found)]
            except ValueError:
                continue
        return found


def safe_name(text: str) -> str:
    """A file name made of any text: letters, digits, `_` and `-` only, at most 80 bytes, never empty.

    Text of which nothing is left, and names that some systems reserve, get a hash.
    """
    printable = text.encode("utf-8", "replace").decode()
    plain = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFKC", printable)).strip("_-")
    while len(plain.encode()) > MAX_NAME_BYTES:
        plain = plain[:-1]
    if not plain or _RESERVED.fullmatch(plain):
        plain = f"{plain or 'story'}_{hashlib.sha256(printable.encode()).hexdigest()[:8]}"
    return plain


def as_json(story: StoryScript) -> dict[str, Any]:
    """The story as the value of its file, in its own form. The inverse of reading it."""
    value: dict[str, Any] = {"story_name": story.story_name}
    if story.story_overview is not None:
        value["story_overview"] = story.story_overview
    if story.reconstruct_target is not None:
        value["reconstruct_target"] = story.reconstruct_target
    return {**value, "scenes": [_scene_json(scene) for scene in story.scenes], **story.extra}


def _scene_json(scene: Scene) -> dict[str, Any]:
    value: dict[str, Any] = {
        "scene_num": scene.scene_num,
        "video_prompts": [shot.prompt for shot in scene.shots],
    }
    frames = [shot.first_frame_prompt for shot in scene.shots]
    while frames and frames[-1] is None:
        frames.pop()
    if frames:
        value["first_frame_prompt"] = [frame or "" for frame in frames]
    return {**value, "cut": [shot.cut for shot in scene.shots], **scene.extra}


def converted(story: StoryScript, form: str) -> StoryScript:
    """The story in a form.

    To StoryMem, labels become words: the description where a label comes first in a prompt, then what the
    subject is (`the young man`), or the description again where two of the prompt's subjects are the same.
    To Memento, a plain prompt becomes the shot caption of a shot without labelled subjects.

    Raises:
        ValueError: no such form.
    """
    if form not in FORMS:
        raise ValueError(f"{form!r} is no form of story script; there are {', '.join(FORMS)}")
    if form == story.form:
        return story
    change = _plain_prompt if form == STORYMEM else _labelled_prompt
    scenes = tuple(
        replace(scene, shots=tuple(replace(s, prompt=change(s, story)) for s in scene.shots))
        for scene in story.scenes
    )
    return replace(story, scenes=scenes, reconstruct_target=None if form == STORYMEM else "")


def _labelled_prompt(shot: ShotPrompt, story: StoryScript) -> str:
    return shot.prompt if shot.prompt.startswith(GLOBAL) else compose("", shot.prompt)


def _plain_prompt(shot: ShotPrompt, story: StoryScript) -> str:
    told, text = shot.parts
    described = dict(story.cast) | dict(_inventory(told))
    heads = [head_phrase(described[label]) for label in labels(text) if label in described]
    seen: set[str] = set()

    def words(match: re.Match[str]) -> str:
        label = match.group()
        if label not in described:
            return label
        head = head_phrase(described[label])
        again = label in seen and heads.count(head) == 1
        seen.add(label)
        return f"the {head}" if again else described[label]

    return LABEL.sub(words, text)


def _inventory(told: str) -> list[tuple[str, str]]:
    try:
        return parse_inventory(told)
    except ValueError:
        return []


def json_schema(form: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the files of a form, as the public ones are.

    Raises:
        ValueError: no such form.
    """
    if form not in FORMS:
        raise ValueError(f"{form!r} is no form of story script; there are {', '.join(FORMS)}")
    text = {"type": "string", "minLength": 1}
    prompt = {**text, "pattern": "^global caption:.*shot caption:"} if form == MEMENTO else text
    scene = {
        "type": "object",
        "properties": {
            "scene_num": {"type": "integer", "minimum": 0},
            "video_prompts": {"type": "array", "items": prompt, "minItems": 1},
            "first_frame_prompt": {"type": "array", "items": {"type": "string"}},
            "cut": {"type": "array", "items": {"type": "boolean"}, "minItems": 1},
        },
        "required": ["scene_num", "video_prompts", "cut"],
    }
    properties: dict[str, Any] = {
        "story_name": text,
        "story_overview": {"type": "string"},
        "scenes": {"type": "array", "items": scene, "minItems": 1},
    }
    required = ["story_name", "scenes"]
    if form == MEMENTO:
        properties["reconstruct_target"] = {"type": "string"}
        required.append("reconstruct_target")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Story script, {form} form",
        "type": "object",
        "properties": properties,
        "required": required,
    }
