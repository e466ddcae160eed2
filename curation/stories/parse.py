"""The value of a story file to a story: what can be mended is mended, and everything found is said."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from curation.captions.grammar import hidden_characters, replace_hidden
from curation.stories.file import ERROR, NOTE, WARNING, StoryFault, short
from curation.stories.form import MAX_NAME_BYTES, Scene, ShotPrompt, StoryScript, safe_name

STORY_KEYS = ("story_name", "story_overview", "reconstruct_target", "scenes")
SCENE_KEYS = ("scene_num", "video_prompts", "first_frame_prompt", "cut")
JOINERS = "\u200c\u200d"
"""Hidden, but Persian, Hindi and emoji are written with."""
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


class Parser:
    """Collects faults while a story is put together."""

    def __init__(self) -> None:
        self.faults: list[StoryFault] = []

    def error(self, where: str, text: str) -> None:
        """It cannot be used."""
        self.faults.append(StoryFault(ERROR, where, text))

    def warn(self, where: str, text: str) -> None:
        """It is mended as the text says, or has no effect."""
        self.faults.append(StoryFault(WARNING, where, text))

    def note(self, where: str, text: str) -> None:
        """Worth knowing."""
        self.faults.append(StoryFault(NOTE, where, text))

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return any(fault.level == ERROR for fault in self.faults)

    def story(self, value: Any, key: str) -> StoryScript | None:
        """The story, or None if there are errors."""
        if not isinstance(value, dict):
            self.error("", f"is {_kind(value)}: a story is an object with story_name and scenes")
            return None
        extra = self._extra(value, STORY_KEYS, "")
        name = self._name(value, key)
        overview = self._line(
            value.get("story_overview"), "", "story_overview", "people read it, no model does"
        )
        target = self._target(value)
        scenes = self._scenes(value)
        if self.failed:
            return None
        shots = [shot for scene in scenes for shot in scene.shots]
        if any(ord(c) > 127 for shot in shots for c in shot.prompt):
            number = sum(not shot.prompt.isascii() for shot in shots)
            self.note("", f"{number} prompts hold characters beyond ASCII, which are kept as they are")
        return StoryScript(
            story_name=name,
            story_overview=overview,
            reconstruct_target=target,
            scenes=tuple(scenes),
            key=key,
            extra=extra,
        )

    # -- fields of the story --------------------------------------------------------------------

    def _name(self, value: dict[str, Any], key: str) -> str:
        name = self._line(value.get("story_name"), "", "story_name", f"{key!r} is used")
        if not name:
            return key
        if {"/", "\\", "\0"} & set(name) or ".." in name or len(name.encode()) > 2 * MAX_NAME_BYTES:
            told = f"story_name {short(name)} is no name for a file: files are named {safe_name(name)[:40]!r}"
            self.warn("", told)
        return name

    def _target(self, value: dict[str, Any]) -> str | None:
        target = value.get("reconstruct_target")
        if isinstance(target, list) and all(isinstance(line, str) for line in target):
            self.warn("", "reconstruct_target is a list: its entries are read as the lines of one string")
            target = "\n".join(target)
        if target is None:
            return None
        if not isinstance(target, str):
            self.error("", f"reconstruct_target is {_kind(target)}: give a string, a line for each character")
            return None
        lines = [self._clean(line, "", "reconstruct_target") for line in target.splitlines()]
        return "\n".join(lines)

    # -- scenes -----------------------------------------------------------------------------------

    def _scenes(self, value: dict[str, Any]) -> list[Scene]:
        given = value.get("scenes")
        if not isinstance(given, list):
            told = "is missing" if given is None else f"is {_kind(given)}"
            self.error("", f"scenes {told}: give a list of objects with scene_num, video_prompts and cut")
            return []
        scenes: list[Scene] = []
        numbers: set[int] = set()
        for position, entry in enumerate(given, start=1):
            if not isinstance(entry, dict):
                self.error(
                    f"scene {position}", f"is {_kind(entry)}: give an object with video_prompts and cut"
                )
                continue
            number = self._scene_num(entry, position)
            if number in numbers:
                told = f"scene_num {number} is given twice: its videos would overwrite each other; renumber"
                self.error(f"scene {position}", told)
            elif scenes and number < max(numbers):
                told = f"scene_num {number} comes after {max(numbers)}: scenes are taken in the file's order"
                self.warn(f"scene {position}", told)
            numbers.add(number)
            scene = self._scene(entry, number)
            if scene.shots:
                scenes.append(scene)
        if not scenes and not self.failed:
            self.error("", "has 0 shots: give at least one scene with one entry in video_prompts")
        return [self._begun(scene, first=i == 0) for i, scene in enumerate(scenes)]

    def _begun(self, scene: Scene, *, first: bool) -> Scene:
        shot = scene.shots[0]
        if shot.cut:
            return scene
        where = f"scene {scene.scene_num}, shot 1"
        if not first:
            self.warn(where, "cut is false: the shot continues from the last picture of the scene before")
            return scene
        self.warn(where, "cut is false, but nothing comes before: it begins with a cut")
        return replace(scene, shots=(replace(shot, cut=True), *scene.shots[1:]))

    def _scene_num(self, entry: dict[str, Any], position: int) -> int:
        where, number = f"scene {position}", entry.get("scene_num")
        if number is None:
            self.warn(where, f"scene_num is missing: {position} is used")
            return position
        if isinstance(number, str) and number.strip().isascii() and number.strip().isdigit():
            self.warn(where, f"scene_num is the string {short(number, 20)}: write a number")
            number = int(number.strip()[:9])
        if isinstance(number, float) and number.is_integer():
            self.warn(where, f"scene_num is {number}: write a whole number")
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 9999:
            self.error(where, f"scene_num is {short(number, 30)}: write a number from 1 to 9999")
            return position
        return number

    def _scene(self, entry: dict[str, Any], number: int) -> Scene:
        where = f"scene {number}"
        extra = self._extra(entry, SCENE_KEYS, where)
        prompts = entry.get("video_prompts")
        if isinstance(prompts, str):
            self.warn(where, "video_prompts is a string: it is read as a list of one prompt")
            prompts = [prompts]
        if not isinstance(prompts, list):
            told = "is missing" if prompts is None else f"is {_kind(prompts)}"
            self.error(where, f"video_prompts {told}: give a list of strings, one for each shot")
            return Scene(scene_num=number, shots=())
        if not prompts:
            self.warn(where, "has 0 shots and is left out: add prompts or remove the scene")
            return Scene(scene_num=number, shots=())
        texts = [
            self._prompt(prompt, f"{where}, shot {shot}") for shot, prompt in enumerate(prompts, start=1)
        ]
        cuts = self._cuts(entry, where, len(prompts))
        frames = self._frames(entry, where, len(prompts))
        shots = tuple(
            ShotPrompt(scene_num=number, shot_num=i, cut=cut, prompt=text, first_frame_prompt=frame)
            for i, (text, cut, frame) in enumerate(zip(texts, cuts, frames, strict=True), start=1)
        )
        return Scene(scene_num=number, shots=shots, extra=extra)

    def _prompt(self, prompt: Any, where: str) -> str:
        if not isinstance(prompt, str):
            self.error(where, f"the prompt is {_kind(prompt)}: give a string")
            return ""
        if not prompt.strip():
            self.error(where, "the prompt is empty: say what the shot shows")
            return ""
        return self._clean(prompt, where, "the prompt")

    def _cuts(self, entry: dict[str, Any], where: str, shots: int) -> list[bool]:
        given = entry.get("cut")
        if isinstance(given, bool | str):
            given = [given]
            self.warn(where, "cut is no list: give a list with true or false for each shot")
        if given is None:
            self.warn(where, f"cut is missing: all {shots} shots begin with a cut")
            return [True] * shots
        if not isinstance(given, list):
            self.error(where, f"cut is {_kind(given)}: give a list with true or false for each shot")
            return [True] * shots
        cuts = [self._cut(cut, f"{where}, shot {i}") for i, cut in enumerate(given[:shots], start=1)]
        if len(given) < shots:
            missing = ", ".join(str(i) for i in range(len(given) + 1, shots + 1))
            told = f"cut has {len(given)} entries for {shots} shots: shot {missing} begins with a cut"
            self.warn(where, told)
        if len(given) > shots:
            self.warn(where, f"cut has {len(given)} entries for {shots} shots: the last ones are ignored")
        return cuts + [True] * (shots - len(cuts))

    def _cut(self, cut: Any, where: str) -> bool:
        if isinstance(cut, bool):
            return cut
        word = str(cut).strip().lower() if isinstance(cut, str | int) else ""
        if word in _TRUE + _FALSE:
            value = word in _TRUE
            self.warn(where, f"cut is {short(cut, 20)}: it is read as {str(value).lower()}; write it so")
            return value
        self.error(where, f"cut is {short(cut, 20)}: write true or false")
        return True

    def _frames(self, entry: dict[str, Any], where: str, shots: int) -> list[str | None]:
        given = entry.get("first_frame_prompt")
        if given is None:
            self.note(where, "first_frame_prompt is missing; the model does not read it")
            return [None] * shots
        if not isinstance(given, list) or not all(isinstance(frame, str) for frame in given):
            self.warn(where, "first_frame_prompt is no list of strings and is left out")
            return [None] * shots
        if len(given) != shots:
            told = f"first_frame_prompt has {len(given)} entries for {shots} shots"
            self.warn(
                where, f"{told}: {'the rest have none' if len(given) < shots else 'the last are left out'}"
            )
        frames = [self._clean(frame, where, "first_frame_prompt") for frame in given[:shots]]
        return [*frames, *[None] * (shots - len(frames))]

    # -- text -------------------------------------------------------------------------------------

    def _line(self, value: Any, where: str, what: str, otherwise: str) -> str | None:
        if value is None:
            self.warn(where, f"{what} is missing: {otherwise}")
            return None
        if not isinstance(value, str):
            self.warn(where, f"{what} is {_kind(value)}, not a string, and is left out: {otherwise}")
            return None
        if not value.strip():
            self.warn(where, f"{what} is empty: {otherwise}")
        return self._clean(value, where, what)

    def _clean(self, text: str, where: str, what: str) -> str:
        """One line without hidden characters; halves of surrogate pairs are an error."""
        hidden = hidden_characters(text.translate(dict.fromkeys(map(ord, JOINERS))))
        if not hidden:
            return text
        if any("\ud800" <= c <= "\udfff" for c in text):
            self.error(
                where, f"{what} holds half of a surrogate pair, which no file can: remove \\ud8.. escapes"
            )
            return ""
        if any(c in text for c in "\n\r\t\v\f\u0085\u2028\u2029"):
            self.warn(where, f"{what} has line ends or tabs: they are read as spaces")
            text = " ".join(part.strip() for part in text.replace("\t", " ").splitlines() if part.strip())
            hidden = hidden_characters(text.translate(dict.fromkeys(map(ord, JOINERS))))
        if hidden:
            self.warn(where, f"{what} holds hidden characters ({', '.join(hidden[:5])}), which are left out")
        return replace_hidden(text, "", keep=JOINERS)

    def _extra(self, value: dict[str, Any], known: Iterable[str], where: str) -> dict[str, Any]:
        extra = {key: v for key, v in value.items() if key not in known}
        for key in extra:
            near = difflib.get_close_matches(str(key)[:60], list(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "it has no effect"
            self.warn(where, f"unknown key {short(key)}: {hint}")
        return extra


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else short(value, 30))
