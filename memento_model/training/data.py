"""The published dataset as training sequences, and every fault of the trainer's contract before step 1.

Two sources give the same sequences: the dataset folder of `make curate` (views of its DuckDB file, so that
a SQL condition selects a part), and the official JSON list (`sequence_clips`, `reconstruct_targets`,
`subjects`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from curation.captions.grammar import SHOT, labels, parse_inventory, split_caption
from memento_model.config import FrameGrid
from memento_model.errors import DataError
from memento_model.training.samples import Clip, ReconTarget, TrainSequence

DATABASE = "annotations.duckdb"
FPS = 16
CANDIDATE_STEP = 4
"""Every fourth frame can be remembered: 4 a second."""


@dataclass(frozen=True, kw_only=True)
class RawClip:
    """A clip as either source tells it."""

    clip_id: str
    path: Path
    caption: str | None


@dataclass(frozen=True, kw_only=True)
class RawSequence:
    """A sequence as either source tells it; `targets` have `recon_id`, `clip_index`, `frame`, `caption`."""

    sequence_id: str
    film_id: str
    clips: tuple[RawClip, ...]
    targets: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a sequence must fulfil.

    Attributes:
        grid: of the shots that are trained on; a clip needs that many frames to be one.
        max_candidates: most frames of a clip that can be remembered.
    """

    grid: FrameGrid
    max_candidates: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Sequences that can be trained on, all faults, one line each, and how many samples they cost.

    `num_short` of the faults are clips too short for a shot, which cost nothing but the shot.
    """

    sequences: tuple[TrainSequence, ...]
    faults: tuple[str, ...]
    skipped: int = 0
    num_short: int = 0


def read_sequences(source: Path, where: str | None = None) -> list[RawSequence]:
    """The sequences of a dataset folder or an official JSON file, in order of their ids.

    Args:
        source: either.
        where: SQL condition over the view `sequences`; for folders.

    Raises:
        DataError: one line that says what is wrong with the source or the condition.
    """
    if source.is_dir() and (source / DATABASE).exists():
        return _from_dataset(source, where)
    if source.is_file() and source.suffix == ".json":
        if where:
            raise DataError(f"{source}: a condition (where) needs a published dataset, not a JSON file")
        return _from_json(source)
    raise DataError(
        f"{source}: neither a dataset folder (with {DATABASE}) nor a .json file; name yours with "
        "--dataset, or run make curate"
    )


def _from_dataset(folder: Path, where: str | None) -> list[RawSequence]:
    import duckdb

    chosen = "SELECT sequence_id, film_id FROM sequences WHERE status = 'kept'"
    if where:
        chosen += f" AND ({where})"
    asked = ""
    try:
        with duckdb.connect(str(folder / DATABASE), read_only=True) as connection:
            asked = f"where {where!r}: " if where else ""
            picked = connection.execute(f"{chosen} ORDER BY sequence_id").fetchall()
            asked = ""
            clips = _rows(connection, "SELECT * FROM clips ORDER BY sequence_id, clip_index")
            targets = _rows(connection, "SELECT * FROM recon_targets ORDER BY sequence_id, recon_id")
    except duckdb.Error as error:
        told = " ".join(str(error).split("\n\n")[0].split())  # without the statement and its caret
        raise DataError(f"{folder / DATABASE}: {asked}{told}") from error
    return [
        RawSequence(
            sequence_id=sequence_id,
            film_id=film_id,
            clips=tuple(
                RawClip(clip_id=c["clip_id"], path=folder / c["video_path"], caption=c["caption"])
                for c in clips.get(sequence_id, [])
            ),
            targets=tuple(_target(t, clips.get(sequence_id, [])) for t in targets.get(sequence_id, [])),
        )
        for sequence_id, film_id in picked
    ]


def _rows(connection: Any, sql: str) -> dict[str, list[dict[str, Any]]]:
    found = connection.execute(sql)
    names = [column[0] for column in found.description]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for values in found.fetchall():
        row = dict(zip(names, values, strict=True))
        grouped.setdefault(row["sequence_id"], []).append(row)
    return grouped


def _target(row: Mapping[str, Any], clips: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By place in the list of clips, as the official form counts; context shots are not in it.

    None where clip and place of the row contradict each other.
    """
    place = next((i for i, c in enumerate(clips) if c["clip_id"] == row["clip_id"]), None)
    agrees = place is not None and row["clip_index"] == clips[place]["clip_index"]
    return {
        "recon_id": row["recon_id"],
        "clip_index": place if agrees else None,
        "frame": row["frame_in_clip_16fps"],
        "caption": row["caption"],
    }


def _from_json(path: Path) -> list[RawSequence]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return sorted((_official(item, path.parent) for item in listed), key=lambda s: s.sequence_id)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a list of sequences in the official form ({error!r})") from error


def _official(item: Mapping[str, Any], folder: Path) -> RawSequence:
    name = str(item["sequence_id"])
    clips = sorted(item["sequence_clips"], key=lambda c: c["sequence_order"])
    if remote := [c for c in clips if "video_path" not in c and "bos_url" in c]:
        raise DataError(
            f"{name}: {remote[0]['bos_url']} is remote; fetch it, convert it to 16 fps and name it by "
            "video_path"
        )
    return RawSequence(
        sequence_id=name,
        film_id=str(item.get("film_id", name)),
        clips=tuple(
            RawClip(clip_id=f"{name}-{i:02d}", path=folder / c["video_path"], caption=c.get("caption"))
            for i, c in enumerate(clips)
        ),
        targets=tuple(
            {
                "recon_id": f"{name}-r{i}",
                "clip_index": t.get("clip_index"),
                "frame": t.get("frame_in_clip_16fps"),
                "caption": t.get("caption"),
            }
            for i, t in enumerate(item.get("reconstruct_targets", []))
        ),
    )


def to_official(sequences: Iterable[TrainSequence], folder: Path) -> list[dict[str, Any]]:
    """Sequences in the official JSON form; `subjects` repeats whom the clips describe.

    Args:
        sequences: to write down.
        folder: where the JSON file will lie; videos are named relative to it.
    """
    return [
        {
            "sequence_id": s.sequence_id,
            "film_id": s.film_id,
            "sequence_clips": [
                {
                    "video_path": Path(os.path.relpath(Path(c.path).absolute(), folder)).as_posix(),
                    "caption": c.caption,
                    "sequence_order": i,
                }
                for i, c in enumerate(s.clips)
            ],
            "reconstruct_targets": [
                {"clip_index": t.clip, "frame_in_clip_16fps": t.frame, "caption": t.caption}
                for t in s.targets
            ],
            "subjects": sorted({label for c in s.clips for label in labels(c.global_caption)}),
        }
        for s in sequences
    ]


# -- the contract -------------------------------------------------------------------------------


def check(sequences: Sequence[RawSequence], contract: Contract) -> Checked:
    """Look into every file and caption; a sequence with a fault is left out and named.

    A clip (but the first, which is never trained on) with fewer frames than a shot needs is a fault that
    costs its own sample alone: the clip can still be remembered.

    Found besides are: a missing or undecodable file, another rate than 16 fps, an empty caption or one the
    trainer would not split, a label nobody described, a target past the end of its clip or in none, fewer
    than two clips. Damage inside a file shows when it is encoded (`memento_model.training.cache_fill`), which
    also is before the first step.
    """
    good: list[TrainSequence] = []
    faults: list[str] = []
    skipped = num_short = 0
    with ThreadPoolExecutor(8) as pool:  # waiting for files, mostly
        looked = pool.map(lambda raw: [_probe(clip) for clip in raw.clips], sequences)
        for raw, probed in zip(sequences, looked, strict=True):
            found = _problems(raw, probed)
            short = _short(raw, probed, contract)
            faults += [*found, *short]
            num_short += 0 if found else len(short)  # those that would cost a sample alone
            lost = len(raw.clips) - 1 if found else len(short)
            skipped += max(0, lost)
            if not found and lost < len(raw.clips) - 1:
                good.append(_sequence(raw, [p.num_frames for p in probed], contract))
    return Checked(sequences=tuple(good), faults=tuple(faults), skipped=skipped, num_short=num_short)


def _short(raw: RawSequence, probed: Sequence[_Probed], contract: Contract) -> list[str]:
    need = contract.grid.num_frames
    return [
        f"{clip.clip_id}: {clip.path} has {file.num_frames} frames; a shot needs {need}"
        for clip, file in zip(raw.clips[1:], probed[1:], strict=True)
        if 0 < file.num_frames < need  # one without any has a fault of its own
    ]


def _problems(raw: RawSequence, probed: Sequence[_Probed]) -> list[str]:
    found = []
    if len(raw.clips) < 2:
        found.append(f"{raw.sequence_id}: {len(raw.clips)} clip(s); a sample needs two")
    for clip, file in zip(raw.clips, probed, strict=True):
        faults = [*file.faults, *caption_problems(clip.caption)]
        found += [f"{clip.clip_id}: {fault}" for fault in faults]
    for target in raw.targets:
        found += [f"{target['recon_id']}: {f}" for f in _target_problems(raw, target, probed)]
    return found


class _Probed(NamedTuple):
    """Frames of a file, and what is wrong with it."""

    num_frames: int
    faults: tuple[str, ...]


def _probe(clip: RawClip) -> _Probed:
    import av

    try:
        with av.open(str(clip.path)) as container:
            stream = container.streams.video[0]
            rate, num_frames = stream.average_rate, stream.frames
            if not num_frames:
                num_frames = sum(1 for _ in container.decode(video=0))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        what = f"cannot be read ({type(error).__name__})" if clip.path.exists() else "is missing"
        return _Probed(0, (f"{clip.path} {what}; export it again with make curate",))
    if not num_frames:
        return _Probed(0, (f"{clip.path} holds no frames; export it again with make curate",))
    if rate != FPS:
        wrong = f"{clip.path} has {float(rate or 0):g} fps; the trainer counts {FPS} a second"
        return _Probed(num_frames, (wrong,))
    return _Probed(num_frames, ())


def caption_problems(caption: str | None) -> list[str]:
    """What the trainer cannot use in a clip's caption, one line each."""
    if not caption or not caption.strip():
        return ["the caption is empty"]
    try:
        told, shot = split_caption(caption)
        described = {label for label, _ in parse_inventory(told)}
    except ValueError as error:
        return [f"caption: {error}"]
    if not shot:
        return ["the shot caption is empty"]
    return [f"caption: {label} is described nowhere" for label in labels(shot) if label not in described]


def _target_problems(raw: RawSequence, target: Mapping[str, Any], probed: Sequence[_Probed]) -> list[str]:
    clip, frame, caption = target["clip_index"], target["frame"], target["caption"]
    if not isinstance(clip, int) or not 0 <= clip < len(raw.clips):
        what = "clip_index and clip_id do not name one" if clip is None else f"clip_index {clip} is none"
        return [f"{what} of the {len(raw.clips)} clips"]
    end = probed[clip].num_frames  # 0 where the file is missing, which is a fault of its own
    if not isinstance(frame, int) or not 0 <= frame < (end or frame + 1):
        return [f"frame {frame} is none of the {end} frames of clip {clip}"]
    if not isinstance(caption, str) or not caption.strip():
        return ["the caption is empty"]
    described = {label for c in raw.clips for label in labels(str(c.caption).partition(SHOT)[0])}
    return [f"caption: {label} is described nowhere" for label in labels(caption) if label not in described]


def _sequence(raw: RawSequence, probed: Sequence[int], contract: Contract) -> TrainSequence:
    clips, start = [], 0
    for clip, num_frames in zip(raw.clips, probed, strict=True):
        assert clip.caption is not None
        clips.append(
            Clip(
                clip_id=clip.clip_id,
                path=str(clip.path),
                num_frames=num_frames,
                caption=clip.caption,
                global_caption=split_caption(clip.caption)[0],
                start_frame=start,
                candidates=candidate_frames(num_frames, contract.max_candidates),
                is_target=num_frames >= contract.grid.num_frames,
            )
        )
        start += num_frames
    return TrainSequence(
        sequence_id=raw.sequence_id,
        film_id=raw.film_id,
        clips=tuple(clips),
        targets=tuple(
            ReconTarget(
                recon_id=t["recon_id"], clip=t["clip_index"], frame=t["frame"], caption=str(t["caption"])
            )
            for t in raw.targets
        ),
    )


def candidate_frames(num_frames: int, most: int) -> tuple[int, ...]:
    """Every fourth frame, thinned evenly if there are more than `most`."""
    frames = range(0, num_frames, CANDIDATE_STEP)
    if len(frames) <= most:
        return tuple(frames)
    return tuple(frames[i * len(frames) // most] for i in range(most))


def split_by_film(
    sequences: Sequence[TrainSequence], validation_share: float
) -> tuple[list[TrainSequence], list[TrainSequence]]:
    """(training, validation): a film is in one of them for ever, whatever else is in the dataset.

    With a share above 0 and two or more films, at least one film is held out.
    """
    films = sorted({s.film_id for s in sequences}, key=_place)
    held = {f for f in films if _place(f) < validation_share}
    if validation_share > 0 and len(films) > 1 and not held:
        held = {films[0]}
    train = [s for s in sequences if s.film_id not in held]
    return train, [s for s in sequences if s.film_id in held]


def _place(film_id: str) -> float:
    """A fixed number in [0, 1) for a film."""
    return int.from_bytes(hashlib.sha256(film_id.encode()).digest()[:8]) / 2**64
