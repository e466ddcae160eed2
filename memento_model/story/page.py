"""The page of a story: storyboard, what each shot remembered and why, drift, and what it was made with.

One file beside the shots, readable without a network or a server; written again after every shot.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from curation.captions.grammar import LABEL, labels, replace_hidden, split_caption
from curation.stories.script import StoryScript
from memento_model.config import Compat, FrameGrid
from memento_model.story.drift import Drift, chart
from memento_model.story.generate import FILM, REFERENCES
from memento_model.story.memory import EXPERTS
from memento_model.story.plan import GenerateSettings, ShotPlan
from memento_model.story.shot_files import ShotFiles
from memento_model.story.trained import TRAINING_ONLY

PAGE = "index.html"
TEMPLATES = Path(__file__).with_name("templates")
BUFFERED = 100
"""Pieces of the page that are written at once."""
COLOURS = 6
"""Colours of the style sheet for labels; further labels start over."""
WITH_MEMORY = ", with memory"
TASKS = {
    "T2V": "from its prompt alone",
    "TM2V": f"after a cut{WITH_MEMORY}",
    "TMI2V": f"goes on from the last frame before{WITH_MEMORY}",
    "MM2V": f"goes on from the last five frames before{WITH_MEMORY}",
    "MR2V": "from reference pictures",
}
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PageFacts:
    """What the page says about how the story was made.

    Attributes:
        settings, compat: of the run.
        model: what was loaded, by name.
        warnings: what should be known before looking at the pictures.
    """

    settings: GenerateSettings
    compat: Compat
    model: Mapping[str, str]
    warnings: Sequence[str] = ()


PATIENCE_S = 180
"""No run is thought to have ended before so many seconds without a sign of life..."""
PATIENCE_SHOTS = 2
"""...nor before so many times of what a shot takes."""


@dataclass(frozen=True, kw_only=True)
class Alive:
    """A sign of life: by it a page can tell in the browser that nobody writes it any more.

    A process that is killed writes nothing, so the page of a run at work has to know when to stop waiting.

    Attributes:
        at: when the page was written.
        shot_s: what a shot takes; None while that is not known.
    """

    at: datetime
    shot_s: float | None = None

    def shown(self) -> dict[str, Any]:
        """As the template has it."""
        patience_s = max(PATIENCE_S, PATIENCE_SHOTS * math.ceil(self.shot_s or 0))
        return {
            "updated": self.at.astimezone(UTC).isoformat(timespec="seconds"),
            "told": f"{self.at:%H:%M on %d %B %Y} ({self.at.tzname() or 'local time'})",
            "shot_s": math.ceil(self.shot_s or 0),
            "patience_s": patience_s,
            "patience": _minutes(patience_s).removeprefix("about "),
            "takes": f" (a shot takes {_minutes(self.shot_s)})" if self.shot_s else "",
        }


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    whole = round(seconds / 60)
    return "about a minute" if whole == 1 else f"about {whole} minutes"


class StoryPage:
    """Writes `index.html` into a story's folder."""

    def __init__(self, folder: Path, story: StoryScript, facts: PageFacts, drift: Drift) -> None:
        self._folder, self._story, self._facts, self._drift = folder, story, facts, drift
        every = labels("\n".join([story.reconstruct_target or "", *(s.prompt for s in story.shots)]))
        self._colours = {label: i % COLOURS for i, label in enumerate(every)}
        self._template = _environment().get_template("story.html")

    def write(
        self,
        plans: Sequence[ShotPlan],
        finished: Collection[str],
        preview: Path | None = None,
        *,
        stopped: bool = False,
        alive: Alive | None = None,
    ) -> None:
        """Write the page, whole or not at all.

        It is written shot by shot from the records in the folder, so a long story's takes no more memory than
        a short one's.

        Args:
            plans: the shots to be made.
            finished: stems of those that are.
            preview: picture of the shot in work.
            stopped: nobody is at work any more; else a page that is not complete renews itself.
            alive: of the run at work; told while it is.
        """
        done = [plan for plan in plans if plan.stem in finished]
        likenesses = self._drift.measure([self._look(plan.stem) for plan in done])
        complete = len(done) == len(plans) and not stopped
        page = self._template.stream(
            story=self._story,
            overview=self._words(self._story.story_overview or ""),
            cast=[(self._words(label), self._words(look)) for label, look in self._story.cast],
            shots=(self._shot(plan, plan.stem in finished, preview) for plan in plans),
            poster=self._stills(done[0].stem)[0] if done else "",
            num_done=len(done),
            num_shots=len(plans),
            num_waiting=len(self._story.shots) - len(plans),
            complete=complete,
            alive=alive.shown() if alive and not complete and not stopped else None,
            stopped=stopped,
            seconds=self._seconds(plans),
            film=FILM,
            references=sorted(p.name for p in (self._folder / REFERENCES).glob("[0-9][0-9].png")),
            likenesses=likenesses,
            chart=chart(likenesses),
            method=self._drift.method,
            warnings=self._facts.warnings,
            settings=told_settings(self._facts.settings, self._facts.compat),
            model=self._facts.model,
        )
        page.enable_buffering(BUFFERED)
        part = self._folder / f".{PAGE}"
        with part.open("w", encoding="utf-8") as file:
            file.writelines(page)
        os.replace(part, self._folder / PAGE)

    @property
    def _grid(self) -> FrameGrid:
        return self._facts.settings.grid

    def _seconds(self, plans: Sequence[ShotPlan]) -> float:
        return sum(self._grid.num_frames - plan.num_dropped for plan in plans) / self._grid.fps

    def _record(self, stem: str) -> Record:
        record: Record = json.loads(ShotFiles(self._folder, stem).record.read_text(encoding="utf-8"))
        return record

    def _look(self, stem: str) -> tuple[str, str, list[Path]]:
        record, files = self._record(stem), ShotFiles(self._folder, stem)
        return stem, record["key"], [files.still(frame) for frame in record["stills"]]

    def _stills(self, stem: str) -> list[str]:
        return [self._relative(path) for path in self._look(stem)[2]]

    def _words(self, text: str) -> list[tuple[str, int | None]]:
        """A text in pieces: (words, colour of the label or None)."""
        shown, made, last = replace_hidden(text, " ", keep="\n"), [], 0
        for match in LABEL.finditer(shown):
            made += [(shown[last : match.start()], None), (match.group(), self._colours.get(match.group()))]
            last = match.end()
        return [piece for piece in [*made, (shown[last:], None)] if piece[0]]

    def _shot(self, plan: ShotPlan, finished: bool, preview: Path | None) -> dict[str, Any]:
        files = ShotFiles(self._folder, plan.stem)
        try:
            told, text = split_caption(plan.prompt)
        except ValueError:
            told, text = "", plan.prompt
        made = {
            "plan": plan,
            "how": self._how(plan),
            "prompt": self._words(text),
            "told": self._words(told),
            "start_s": plan.start_frame / self._grid.fps,
            "length_s": (self._grid.num_frames - plan.num_dropped) / self._grid.fps,
            "done": finished,
            "preview": None,
        }
        if not finished:
            if preview is not None and preview.stem == plan.stem and preview.is_file():
                made["preview"] = preview.relative_to(self._folder).as_posix()
            return made
        record = self._record(plan.stem)
        return {
            **made,
            "video": files.video.name,
            "stills": self._stills(plan.stem),
            "subject": files.subject.name if files.subject.name in record["files"] else None,
            "identity": self._words(plan.identity_prompt or ""),
            "memories": list(self._memories(plan, record)),
            "no_memory": self._no_memory(plan),
        }

    def _how(self, plan: ShotPlan) -> str:
        how = TASKS[plan.task]
        return how.removesuffix(WITH_MEMORY) if self._facts.settings.mode == "wan" else how

    def _no_memory(self, plan: ShotPlan) -> str:
        if self._facts.settings.mode == "wan":
            return "Nothing is remembered: mode wan has no memory."
        return "Nothing is remembered: there is no shot before this one." if plan.index == 0 else ""

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _memories(self, plan: ShotPlan, record: Record) -> Iterator[dict[str, Any]]:
        """What either expert saw; one panel where both saw the same."""
        high, low = (record["memory"][expert] for expert in EXPERTS)
        if high == low:
            panels = [("Both experts", low)]
        else:
            panels = [("High-noise expert (first steps)", high), ("Low-noise expert (last steps)", low)]
        for name, seen in panels:
            if seen["frames"]:
                yield {"name": name, **self._panel(plan, seen)}

    def _panel(self, plan: ShotPlan, seen: Record) -> dict[str, Any]:
        chosen = {tuple(frame) for frame in seen["frames"]}
        how: dict[tuple[str, int], dict[str, Any]] = {}
        candidates = [tuple(frame) for frame in seen.get("candidates", [])]
        for i, frame in enumerate(candidates if "local_scores" in seen else ()):
            how[frame] = {"local": seen["local_scores"][i], "global": seen["global_scores"][i], "by": ""}
        for rank, i in enumerate(seen["picked"] if how else ()):
            local = rank < seen["num_local"]
            place = rank + 1 if local else rank + 1 - seen["num_local"]
            how[candidates[i]]["by"] = f"{'local' if local else 'global'} {place}"
        return {
            "frames": [self._frame(plan, tuple(frame), how) for frame in seen["frames"]],
            "left_out": [self._frame(plan, frame, how) for frame in candidates if frame not in chosen],
            "margin": seen.get("margin"),
            "num_candidates": len(candidates),
            "why": self._why(seen, len(candidates)),
        }

    def _why(self, seen: Record, num_candidates: int) -> str:
        """Why these frames, in a line."""
        num, references = len(seen["frames"]), sum(1 for shot, _ in seen["frames"] if not shot)
        if "num_local" in seen:
            best = f"the {seen['num_local']} best by the local score, which reads what happens in this shot"
            wide = num - seen["num_local"]
            return f"{best}; then the {wide} best of the rest by the global score, which reads who looks how"
        if num_candidates:
            return f"{num} of {num_candidates} candidates, drawn at random, as these weights were trained"
        if self._facts.settings.mode == "storymem":
            return "keyframes that looked new when they were made: the story's first ones, and the latest"
        if references == num:
            return "the reference pictures, all of them"
        return "all candidates there are: they fit into the memory, so none had to be left out"

    def _frame(
        self, plan: ShotPlan, frame: tuple[str, int], how: Mapping[tuple[str, int], Any]
    ) -> dict[str, Any]:
        shot, number = frame
        if not shot:
            place = f"{REFERENCES}/{number:02d}.png"
            name = f"reference {number + 1}"
            return {"picture": place, "name": name, "shot": "", "by": "", **how.get(frame, {})}
        picture = self._relative(ShotFiles(self._folder, shot).still(number))
        name = f"{shot}, frame {number}"
        return {"picture": picture, "name": name, "shot": shot, "by": "", **how.get(frame, {})}


def told_settings(settings: GenerateSettings, compat: Compat) -> dict[str, str]:
    """Settings for people: all that decide the pictures, and the switches that are not at their default."""
    grid = settings.grid
    made = {
        "mode": settings.mode,
        "seed": str(settings.seed),
        "solver steps": str(settings.steps or "40, the model's own"),
        "guidance": f"{settings.guidance:g}",
        "size": f"{grid.height}x{grid.width} (height x width), {grid.num_frames} frames, {grid.fps} a second",
        "reconstruction slot": "yes" if settings.reconstruct and settings.mode == "memento" else "no",
        "attention": settings.attention_form,
        "frames a continued shot begins with": str(settings.continuation_frames),
        "negative prompt": settings.negative_prompt or "Wan's own",
        "video": f"H.264, crf {settings.crf}",
    }
    plain = asdict(Compat())
    for field in fields(Compat):
        value = getattr(compat, field.name)
        if value != plain[field.name] and field.name not in TRAINING_ONLY:
            made[f"switch {field.name}"] = str(value)
    return made


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters["clock"] = lambda seconds: f"{int(seconds) // 60}:{seconds % 60:04.1f}"
    made.filters["plain"] = lambda text: replace_hidden(str(text), " ")
    return made
