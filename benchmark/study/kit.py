"""Making a study: films under neutral names, one page for all raters, and the key that is kept back.

    <folder>/pages/index.html            what raters get; opens from a disk, without a network
    <folder>/pages/videos/<token>.mp4    the films
    <folder>/key.json                    which film is whose; never give it to raters
    <folder>/answers/                    where to put the files that raters send back

Tokens are hashes keyed with a secret of the study, so that nobody who knows the names of the methods can tell
which film is whose. Making a study again goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.stories import SHOT_MARKER, ShotKey, Story
from benchmark.study.design import CRITERIA, Film, Trial, pairs, sessions
from benchmark.study.films import write_film
from benchmark.submission import Submission
from benchmark.words import counted

FORMAT = "memento-study/1"
KEY, PAGES, VIDEOS, ANSWERS = "key.json", "pages", "videos", "answers"
TEMPLATES = Path(__file__).with_name("templates")
MOST = 6
"""Missing shots that are named of a method."""
QUESTIONS = {
    "consistency": (
        "Consistency",
        "In which film do people, things and places stay more the same from shot to shot?",
    ),
    "prompt": ("Script", "Which film shows more of what the script says?"),
    "aesthetics": ("Looks", "Which film is nicer to look at?"),
}


class StudyError(ValueError):
    """A study cannot be made or read; the message says why and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What is up to the person who runs a study.

    Attributes:
        raters: how many; the page serves each by number.
        reference: compare only with this method; every pair of methods if None.
        limit: comparisons in a session; all if None.
        checks: attention checks in each session.
        must_watch: answers are locked until both films were played through.
        partial: use stories of which shots are missing; only shots that every method has are shown.
        seed: of what is left to chance.
    """

    raters: int = 10
    reference: str | None = None
    limit: int | None = None
    checks: int = 0
    must_watch: bool = True
    partial: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that was made.

    Attributes:
        folder: of it.
        page: to open.
        sessions: trials of each rater.
        films: how many.
        faults: what was left out, a line each.
    """

    folder: Path
    page: Path
    sessions: Sequence[Sequence[Trial]]
    films: int
    faults: Sequence[str]


def make_study(
    submissions: Sequence[Submission],
    stories: Mapping[str, Story],
    folder: Path,
    settings: StudySettings,
    told: Callable[[int, int], None] | None = None,
) -> Study:
    """Make or complete a study.

    Args:
        submissions: of the methods, with the facts of their files (`benchmark.submission.probed`).
        stories: by key.
        folder: of the study; new, or one that was made with the same settings.
        settings: see there.
        told: is called with films done and films in all.

    Raises:
        StudyError: nothing to compare, or the folder holds another study or other files.
        OSError: it cannot be written.
    """
    methods = [submission.method for submission in submissions]
    try:
        compared = pairs(methods, settings.reference)
    except ValueError as error:
        raise StudyError(str(error)) from error
    usable, faults = usable_stories(submissions, stories, partial=settings.partial)
    if not usable:
        raise StudyError(_nothing(submissions, stories, settings, faults))
    common = {key: common_shots(submissions, stories[key]) for key in usable}
    key = _key(folder, submissions, common, settings)
    shown = sessions(
        usable, compared, settings.raters, limit=settings.limit, checks=settings.checks, seed=settings.seed
    )
    needed = list(dict.fromkeys(film for trials in shown for t in trials for film in (t.left, t.right)))
    needed.sort(key=lambda film: token(key["secret"], film))
    videos = folder / PAGES / VIDEOS
    videos.mkdir(parents=True, exist_ok=True)
    (folder / ANSWERS).mkdir(exist_ok=True)
    by_method = {submission.method: submission for submission in submissions}
    films: dict[str, Any] = key.setdefault("films", {})
    for done, film in enumerate(needed):
        if told:
            told(done, len(needed))
        name = token(key["secret"], film)
        if name not in films or not (videos / f"{name}.mp4").is_file():
            clips = by_method[film.method].clips[film.story]
            starts = write_film([clips[k] for k in common[film.story]], videos / f"{name}.mp4")
            films[name] = {"method": film.method, "story": film.story, "starts_ms": starts}
            _write(folder / KEY, json.dumps(key, indent=1))
    if told:
        told(len(needed), len(needed))
    plan = page_plan(key, shown, stories, settings, common)
    key |= {"study": plan["study"], "sessions": [[_trial(t) for t in trials] for trials in shown]}
    _write(folder / KEY, json.dumps(key, indent=1))
    page = folder / PAGES / "index.html"
    _write(page, render(plan))
    return Study(folder=folder, page=page, sessions=shown, films=len(needed), faults=faults)


def usable_stories(
    submissions: Sequence[Submission], stories: Mapping[str, Story], *, partial: bool = False
) -> tuple[list[str], list[str]]:
    """Stories that every method has, and a line for each one that is left out or not shown whole.

    With `partial`, a story counts of which there is at least one shot that every method has.
    """
    usable, faults = [], []
    for key in sorted(stories):
        all_shots = len(stories[key].shots)
        there = {s.method: len(s.clips.get(key, {})) for s in submissions}
        common = common_shots(submissions, stories[key])
        if len(common) == all_shots:
            usable.append(key)
        elif partial and common:
            usable.append(key)
            lacking = [
                f"{s.method} {_lacks(s, stories[key])}" for s in submissions if there[s.method] < all_shots
            ]
            shown = f"{len(common)} of {all_shots} shots are shown, those that every method has"
            faults.append(f"{key}: {shown}; missing: {'; '.join(lacking)}")
        elif any(there.values()):
            counts = ", ".join(f"{name} {count}" for name, count in there.items() if count < all_shots)
            faults.append(f"{key}: left out, of {all_shots} shots there are: {counts}")
    return usable, faults


def common_shots(submissions: Sequence[Submission], story: Story) -> list[ShotKey]:
    """Shots of a story that every method has, in the order of the script."""
    clips = [submission.clips.get(story.key, {}) for submission in submissions]
    return [shot.key for shot in story.shots if all(shot.key in each for each in clips)]


def _lacks(submission: Submission, story: Story) -> str:
    there = submission.clips.get(story.key, {})
    stems = [shot.key.stem for shot in story.shots if shot.key not in there]
    return ", ".join(stems[:MOST]) + (f" and {len(stems) - MOST} more" if len(stems) > MOST else "")


def _nothing(
    submissions: Sequence[Submission],
    stories: Mapping[str, Story],
    settings: StudySettings,
    faults: Sequence[str],
) -> str:
    """Why no story can be shown, and whether `partial` would help."""
    what = "any shot" if settings.partial else "all its shots"
    told = f"no story has {what} from every method: {'; '.join(faults[:3]) or 'no story'}"
    if not settings.partial and (some := usable_stories(submissions, stories, partial=True)[0]):
        of = counted(len(some), "story", "stories")
        told += f". --partial shows the shots that every method has: of {of}"
    return told


def token(secret: str, film: Film) -> str:
    """Name of a film for raters: a hash that only the secret lets anybody compute."""
    text = json.dumps([film.method, film.story])
    return hashlib.blake2b(text.encode(), key=bytes.fromhex(secret), digest_size=8).hexdigest()


def page_plan(
    key: Mapping[str, Any],
    shown: Sequence[Sequence[Trial]],
    stories: Mapping[str, Story],
    settings: StudySettings,
    common: Mapping[str, Sequence[ShotKey]],
) -> dict[str, Any]:
    """All that the page knows: no method is named in it. Scripts hold the shots that the films show."""
    names = sorted({trial.story for trials in shown for trial in trials})
    rows = [
        [[names.index(t.story), token(key["secret"], t.left), token(key["secret"], t.right)] for t in trials]
        for trials in shown
    ]
    used = {str(name) for trials in rows for _, *pair in trials for name in pair}
    scripts = [
        {
            "overview": stories[name].overview or "",
            "shots": [
                {"stem": shot.key.stem, "text": shot.shot_text, "looks": _looks(shot.prompt)}
                for shot in stories[name].shots
                if shot.key in common[name]
            ],
        }
        for name in names
    ]
    plan: dict[str, Any] = {
        "criteria": [{"id": c, "title": QUESTIONS[c][0], "question": QUESTIONS[c][1]} for c in CRITERIA],
        "mustWatch": settings.must_watch,
        "stories": scripts,
        "starts": {name: key["films"][name]["starts_ms"] for name in sorted(used)},
        "sessions": rows,
    }
    return {"study": study_id(key), **plan}


def _told(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def study_id(key: Mapping[str, Any]) -> str:
    """Name of a study in the files of its raters; the same when raters are added."""
    return hashlib.sha256(f"study {key['secret']}".encode()).hexdigest()[:12]


def render(plan: Mapping[str, Any]) -> str:
    """The page of a plan: one file with everything but the films."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return made.get_template("study.html").render(plan=plan)


def _looks(prompt: str) -> str:
    """Who is who, from what comes before the shot caption of a rewritten prompt; else empty."""
    head, marker, _ = prompt.partition(SHOT_MARKER)
    return re.sub(r"^\s*global caption:\s*|[;\s]+$", "", head) if marker else ""


def _key(
    folder: Path,
    submissions: Sequence[Submission],
    common: Mapping[str, Sequence[ShotKey]],
    settings: StudySettings,
) -> dict[str, Any]:
    """The key to go on with, or a new one.

    Raises:
        StudyError: the folder holds something else.
    """
    facts: dict[str, Any] = {
        "methods": [s.method for s in submissions],
        "stories": list(common),
        "settings": {name: value for name, value in asdict(settings).items() if name != "raters"},
        "videos": _content(submissions, common),
    }
    path = folder / KEY
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StudyError(f"{folder}: not empty and no study: choose another --output")
        folder.mkdir(parents=True, exist_ok=True)
        key = {"format": FORMAT, "secret": secrets.token_hex(16), **facts}
        _write(path, json.dumps(key, indent=1))
        return key
    key = read_key(path)
    if other := [name for name, value in facts.items() if key.get(name) != value]:
        there, now = key.get("settings", {}), facts["settings"]
        differing = [
            f"{name} {_told(there.get(name))} there, {_told(value)} now"
            for name, value in now.items()
            if there.get(name) != value
        ]
        told = f" ({'; '.join(differing)})" if differing else ""
        raise StudyError(
            f"{folder}: holds a study of other {', '.join(other)}{told}: "
            "choose another --output, or remove it"
        )
    return key


def _content(submissions: Sequence[Submission], common: Mapping[str, Sequence[ShotKey]]) -> str:
    ids = [[s.clips[key][shot].id for shot in common[key]] for s in submissions for key in common]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def read_key(path: Path) -> dict[str, Any]:
    """The key of a study.

    Raises:
        StudyError: it is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read as a study's key ({error})") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise StudyError(f"{path}: is no key of a study; `memento study make` writes one beside the pages")
    return value


def _trial(trial: Trial) -> dict[str, Any]:
    sides = {side: [film.method, film.story] for side, film in (("left", trial.left), ("right", trial.right))}
    return {"story": trial.story, **sides, "check": trial.check}


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
