"""Aesthetic scores of shots by a model: the optional tier of quality. Measures only; `filters` decides."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from curation import aesthetic_heads, repositories, rows
from curation.engine.stage import Folder, Resources, Row, Stage, StopRun, Worker
from curation.engine.store import canonical
from curation.models import aesthetic_scorer
from curation.models.aesthetic_scorer import AUTO, CLIP, HEAD, OFF, AestheticScorer, Choice, clip_input
from curation.models.vllm_process import gpus_here
from curation.optional import MissingExtra
from curation.stages.crop import inside_bars
from curation.video.decode import can_seek, upright
from curation.video.single_frames import frames_at, key_times, pick
from curation.weights import WeightsMissing

SHOTS_AT_A_TIME = 32
SIDES = ("top", "bottom", "left", "right")


@dataclass(frozen=True, kw_only=True)
class Aesthetic(Stage):
    """Score the looks of shots with LAION's linear head on CLIP ViT-L/14.

    Attributes:
        model: auto (where torch, transformers and the CLIP weights are here, else off), off, or a folder
            with CLIP ViT-L/14 as transformers keeps it.
        pictures: a shot is judged by at most so many of its key frames, the ones nearest the middles of as
            many equal parts; its score is their mean. A shot without a key frame is judged by its middle.
    """

    name: ClassVar[str] = "aesthetic"
    reads: ClassVar[tuple[str, ...]] = ("film_id", "stream", "shots", "shot_scores")
    locates: ClassVar[tuple[str, ...]] = ("path",)
    writes: ClassVar[pa.Schema] = rows.AESTHETIC

    model: str = AUTO
    pictures: int = 1

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ValueError(f"aesthetic.pictures must be at least 1, got {self.pictures}")
        if not self.model:
            raise ValueError("aesthetic.model is empty; use auto, off or a folder")

    @property
    def cached(self) -> bool:  # type: ignore[override]
        """Nulls are not worth keeping, and nothing waits for them."""
        return self.choice().model != OFF

    def choice(self) -> Choice:
        """What `model` stands for on this machine, and why."""
        return aesthetic_scorer.choose(self.model)

    def settled(self) -> tuple[Aesthetic, str]:
        """With `auto` decided; what is missing of a model that was asked for is said at once.

        That nothing is here for `auto` is no news for every run: `memento doctor` says it.
        """
        choice = self.choice()
        because = f" (auto: {choice.why})" if choice.why else ""
        stage = replace(self, model=choice.model)
        if choice.model == OFF:
            return stage, ""
        folder = Path(choice.model).expanduser()
        if aesthetic_scorer.folder_of(choice.model) and folder.is_dir():
            stage = replace(stage, model=str(folder.absolute()))  # workers stand elsewhere
        named = f"{repositories.shown_name(choice.model)} and LAION's linear head"
        return stage, f"aesthetic scores by {named}{because}"

    def occupies(self) -> Resources:
        """Next to nothing when off; otherwise a CPU for decoding and a share of a GPU where there is one."""
        if self.choice().model == OFF:
            return Resources(cpus=1.0)
        return Resources(cpus=1.0, gpus=0.25 if gpus_here() else 0.0, actors=True)

    def deciding(self) -> Row:
        """Not where the weights lie; `fingerprint` says which they are."""
        if self.choice().model == OFF:
            return {"model": OFF}
        return {"model": CLIP, "pictures": self.pictures}

    def fingerprint(self) -> dict[str, str]:
        """The weights' revision and the head's hash."""
        model = self.choice().model
        if model == OFF:
            return {}
        revision = repositories.revision_of(aesthetic_scorer.folder_of(model))
        return {"clip": revision, "head": aesthetic_heads.SOURCE_SHA256[HEAD]}

    def worker(self) -> Worker:
        """Loads the model when the first film needs it."""
        if self.choice().model == OFF:
            return lambda row, folder: {"aesthetics": [None] * len(row["shots"]), "aesthetic_models": []}
        lazy = _Lazily(self)

        def work(row: Row, folder: Folder) -> Row:
            loaded = lazy.loaded()
            scores = score_shots(loaded.scorer, row, self.pictures, folder, loaded.models)
            return {"aesthetics": scores, "aesthetic_models": [loaded.told]}

        return work


class _Loaded(NamedTuple):
    """The model, what is published of it, and the stage's fingerprint."""

    scorer: AestheticScorer
    told: Row
    models: dict[str, str]


class _Lazily:
    """The model, loaded by the first film without a kept result; what cannot be loaded stops the run."""

    def __init__(self, stage: Aesthetic) -> None:
        self._stage, self._lock = stage, threading.Lock()
        self._made: _Loaded | None = None

    def loaded(self) -> _Loaded:
        """The model.

        Raises:
            StopRun: it cannot be had on this node.
        """
        with self._lock:
            if self._made is None:
                model = self._stage.choice().model
                try:
                    folder = aesthetic_scorer.folder_of(model)
                    scorer, models = AestheticScorer(folder), self._stage.fingerprint()
                except (MissingExtra, WeightsMissing) as missing:
                    raise StopRun(str(missing)) from missing
                self._made = _Loaded(scorer, aesthetic_scorer.describe(model, folder), models)
            return self._made


def score_shots(
    scorer: AestheticScorer, row: Row, pictures: int, folder: Folder, models: Mapping[str, str]
) -> list[float | None]:
    """The score of each shot of a film row; None where none of its pictures can be decoded.

    Parts of a film are remembered at once: on a CPU a long film takes the better part of an hour.

    Args:
        scorer: the model.
        row: with the columns the stage reads and locates.
        pictures: per shot at most.
        folder: for the counters of the decode this takes, and to remember parts.
        models: the stage's fingerprint.
    """
    stream, shots = row["stream"], row["shots"]
    keys = key_times(row["path"], stream)
    step = SHOTS_AT_A_TIME if can_seek(stream) else max(1, len(shots))
    scores: list[float | None] = []
    for first in range(0, len(shots), step):
        part = {**row, **{name: row[name][first : first + step] for name in ("shots", "shot_scores")}}
        name = _part_key(part, pictures, models)
        made = folder.recall(name)
        if made is None:
            made = _score_part(scorer, part, pictures, keys)
            folder.remember(name, made)
        scores += made["scores"]
        folder.count("decoded_frames", made["decoded_frames"])
        folder.count("decoded_s", made["decoded_frames"] / stream["fps"] if stream["fps"] else 0.0)
    return scores


def _part_key(part: Row, pictures: int, models: Mapping[str, str]) -> str:
    """A hash of all that decides the scores of some shots; a shot's id holds its film's hash and its span."""
    bars = [[score[f"bar_{side}"] for side in SIDES] for score in part["shot_scores"]]
    made_by = {"version": Aesthetic.version, "models": dict(models), "pictures": pictures}
    told = {**made_by, "shots": [shot["shot_id"] for shot in part["shots"]], "bars": bars}
    return hashlib.sha256(canonical(told).encode()).hexdigest()


def _score_part(scorer: AestheticScorer, part: Row, pictures: int, keys: list[int]) -> Row:
    """Scores of some shots in order, and the number of frames that were decoded for them."""
    stream, shots = part["stream"], part["shots"]
    wanted = sorted(
        (pts, i)
        for i, shot in enumerate(shots)
        for pts in pick(keys, shot["start_pts"], shot["end_pts"], pictures)
    )
    decoded: list[int] = []
    found: list[list[float]] = [[] for _ in shots]
    held: list[tuple[int, Any]] = []
    times = [pts for pts, _ in wanted]
    for position, frame in frames_at(part["path"], stream, times, keys, decoded.append):
        shot = wanted[position][1]
        held.append((shot, _inside(frame, stream, part["shot_scores"][shot])))
        if len(held) == aesthetic_scorer.BATCH:
            _score(scorer, held, found)
    _score(scorer, held, found)
    scores = [round(sum(one) / len(one), aesthetic_scorer.DIGITS) if one else None for one in found]
    return {"scores": scores, "decoded_frames": sum(decoded)}


def _score(scorer: AestheticScorer, held: list[tuple[int, Any]], found: list[list[float]]) -> None:
    """Score the pictures that were gathered and let go of them."""
    for (shot, _), score in zip(held, scorer.scores([picture for _, picture in held]), strict=True):
        found[shot].append(score)
    held.clear()


def _inside(frame: Any, stream: Row, scores: Row) -> Any:
    """What CLIP sees of a frame: the picture inside the shot's black bars."""
    inside = inside_bars(stream, scores)
    top, bottom, left, right = (int(v) for v in (inside.top, inside.bottom, inside.left, inside.right))
    picture = upright(frame, stream, None, "rgb24")
    cut = picture[top:bottom, left:right]
    return clip_input(cut if cut.size else picture, stream["sar_num"] / stream["sar_den"])
