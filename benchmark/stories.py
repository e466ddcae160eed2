"""A story as the benchmark sees it: scenes, shots, prompts, cut flags, and who appears where.

Both public encodings of ST-Bench are read (`curation.stories.script`); a story has the same key in both.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from curation.stories.script import StoryError, StoryScript, parse_story_text, read_story, safe_name

TAGS = ("Person", "Animal", "Vehicle", "Group", "Object")
CONTINUATION, CUT, SCENE_CHANGE, UNKNOWN = "continuation", "cut", "scene_change", "unknown"
SHOT_MARKER = "shot caption:"
CHARACTERS = "characters.json"
"""How a character map beside scripts is called: it is no script (`benchmark.characters`)."""


class ShotKey(NamedTuple):
    """Declared numbers of a shot: of its scene, and in its scene."""

    scene: int
    shot: int

    @property
    def stem(self) -> str:
        """Name of the shot's video without its suffix: `02_01`."""
        return f"{self.scene:02d}_{self.shot:02d}"


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One shot.

    Attributes:
        key: declared numbers.
        prompt: as the script has it.
        cut: whether it begins with a cut; None if the script does not say.
    """

    key: ShotKey
    prompt: str
    cut: bool | None = None

    @property
    def shot_text(self) -> str:
        """What comes after `shot caption:`; the whole prompt if that is not there."""
        return self.prompt.partition(SHOT_MARKER)[2].strip() or self.prompt


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Shots in one place; `number` as declared."""

    number: int
    shots: tuple[Shot, ...]

    def text(self, joiner: str = " ") -> str:
        """All prompts of the scene, joined. The papers do not name the joiner."""
        return joiner.join(shot.prompt for shot in self.shots)


class AdjacentPair(NamedTuple):
    """Two shots whose declared numbers follow each other, and how the script joins them."""

    first: ShotKey
    second: ShotKey
    kind: str


@dataclass(frozen=True, kw_only=True)
class Story:
    """A story.

    Attributes:
        key: the same in both encodings: `robinson`.
        scenes: in the order of the script.
        overview: None if the script has none.
        aliases: other names that a folder of its videos may have.
        source: which encoding the prompts are from; scores on different ones do not compare.
        faults: what was found and mended, a line each.
        cast: character -> shots, from a map; None if only the labels of the prompts say who is where.
        reviewer: who reviewed that map; empty if nobody did.
    """

    key: str
    scenes: tuple[Scene, ...]
    overview: str | None = None
    aliases: frozenset[str] = frozenset()
    source: str = ""
    faults: tuple[str, ...] = ()
    cast: Mapping[str, tuple[ShotKey, ...]] | None = None
    reviewer: str = ""

    @property
    def shots(self) -> tuple[Shot, ...]:
        """All shots in order."""
        return tuple(shot for scene in self.scenes for shot in scene.shots)

    def adjacent_shots(self) -> Iterator[AdjacentPair]:
        """Pairs inside scenes whose declared numbers follow each other."""
        for scene in self.scenes:
            for a, b in zip(scene.shots, scene.shots[1:], strict=False):
                if b.key.shot == a.key.shot + 1:
                    kind = UNKNOWN if b.cut is None else CUT if b.cut else CONTINUATION
                    yield AdjacentPair(a.key, b.key, kind)

    def scene_changes(self) -> Iterator[AdjacentPair]:
        """The last shot of a scene and the first of the one with the next number."""
        for a, b in self.adjacent_scenes():
            yield AdjacentPair(a.shots[-1].key, b.shots[0].key, SCENE_CHANGE)

    def adjacent_scenes(self) -> Iterator[tuple[Scene, Scene]]:
        """Scenes whose declared numbers follow each other."""
        for a, b in zip(self.scenes, self.scenes[1:], strict=False):
            if b.number == a.number + 1:
                yield a, b

    def characters(self, tags: Sequence[str] = TAGS) -> dict[str, tuple[ShotKey, ...]]:
        """Character -> shots: those of the map if there is one, else those whose shot caption has the label.

        Args:
            tags: which labels count; characters of a map that bear no label (`Harry`) always do.
        """
        if self.cast is not None:
            others = {*TAGS} - {*tags}
            return {name: keys for name, keys in self.cast.items() if name.partition(" ")[0] not in others}
        label = re.compile(rf"\[((?:{'|'.join(map(re.escape, tags))}) [A-Z])\]")
        found: dict[str, list[ShotKey]] = {}
        for shot in self.shots:
            for name in dict.fromkeys(label.findall(shot.shot_text)):
                found.setdefault(name, []).append(shot.key)
        return {name: tuple(keys) for name, keys in found.items()}


def load_story(path: Path | str) -> Story:
    """A story from its file, in either encoding.

    Raises:
        StoryError: the file cannot be used; a line for each error.
    """
    path = Path(path)
    script = read_story(path)
    value, _ = parse_story_text(path.read_text(encoding="utf-8-sig"))
    return story_from_script(script, [len(scene.get("cut") or ()) for scene in value["scenes"]])


def story_from_script(script: StoryScript, declared_cuts: Sequence[int] | None = None) -> Story:
    """The benchmark's view of a script.

    Args:
        script: as `curation.stories.script` reads it; a cut flag that a file lacks was filled in there.
        declared_cuts: how many cut flags each scene of the file has; those beyond are taken as unknown.
    """
    scenes = []
    for number, scene in enumerate(script.scenes):
        known = len(scene.shots) if declared_cuts is None else declared_cuts[number]
        shots = tuple(
            Shot(key=ShotKey(s.scene_num, s.shot_num), prompt=s.prompt, cut=s.cut if i < known else None)
            for i, s in enumerate(scene.shots)
        )
        scenes.append(Scene(number=scene.scene_num, shots=shots))
    return Story(
        key=bare_name(script.folder),
        scenes=tuple(scenes),
        overview=script.story_overview or None,
        aliases=frozenset({script.folder, safe_name(script.story_name)}),
        source=script.form,
        faults=tuple(str(fault) for fault in script.faults),
    )


def load_stories(paths: Iterable[Path | str]) -> tuple[dict[str, Story], list[str]]:
    """Stories by key, sorted, and every fault, a line each. What cannot be used is left out and said.

    Args:
        paths: files, or folders whose `.json` files are read.
    """
    found: dict[str, Story] = {}
    faults: list[str] = []
    for file in _files(paths, faults):
        try:
            story = load_story(file)
        except StoryError as error:
            faults += str(error).splitlines()
            continue
        faults += [f"{file.name}: {fault}" for fault in story.faults]
        if story.key in found:
            faults.append(f"{file}: a story {story.key!r} was read before: this one is left out, rename one")
            continue
        found[story.key] = story
    return dict(sorted(found.items())), faults


def bare_name(folder: str) -> str:
    """`robinson` of `0_robinson`: the rewritten scripts are numbered, the original ones are not."""
    return re.sub(r"^\d+_(?=.)", "", folder)


def resolve_story(name: str, stories: Mapping[str, Story]) -> str | None:
    """Key of the story that a folder's name means; None if it means none, or more than one."""
    if name in stories:
        return name
    meant = [s.key for s in stories.values() if name in s.aliases or s.key == bare_name(name)]
    return meant[0] if len(meant) == 1 else None


def near_stories(name: str, stories: Mapping[str, Story]) -> list[str]:
    """Stories that a folder's name may have been meant for, at most three: part of it, or written like it."""
    plain = bare_name(name).lower()
    inside = [key for key in stories if key.lower() in plain or (len(plain) > 2 and plain in key.lower())]
    inside.sort(key=len, reverse=True)  # of `cat` and `black_cat`, the one that says more
    written = difflib.get_close_matches(plain, list(stories), n=3, cutoff=0.75)
    return list(dict.fromkeys([*inside, *written]))[:3]


def script_files(folder: Path) -> list[Path]:
    """The files of a folder that may be scripts, sorted."""
    return sorted(file for file in folder.glob("*.json") if file.name != CHARACTERS)


def _files(paths: Iterable[Path | str], faults: list[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        files = script_files(path)
        if not files:
            faults.append(f"{path}: no .json file in this folder: give the folder of the story scripts")
        yield from files
