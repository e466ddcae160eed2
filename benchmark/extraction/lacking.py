"""What plans need that is not on disk yet, as jobs that share no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark.extraction.decoding import FileWork
from benchmark.extraction.plan import VICLIP, Plan, sources
from benchmark.extraction.shelf import TEXTS, Shelf, text_keys
from benchmark.extraction.working import ClipJob, Job
from benchmark.features import TEXT, Unit
from benchmark.submission import Clip

Filed = tuple[str, str]
"""Kind of the encoder, and name of a file of features."""


@dataclass(frozen=True)
class Wanted:
    """All that plans read, by where it is filed.

    Attributes:
        keys: (kind, name) -> int32 [n, k], each once.
        parts: id of joined videos -> those.
        texts: each once.
        users: (kind, name) -> (story, unit) of those that read it.
    """

    keys: dict[Filed, np.ndarray]
    parts: dict[str, tuple[Clip, ...]]
    texts: tuple[str, ...]
    users: dict[Filed, list[tuple[str, Unit]]] = field(default_factory=dict)

    def count(self, filed: Filed) -> int:
        """How many features."""
        return len(self.keys[filed])


def wanted(plans: Iterable[Plan], kinds: Iterable[str]) -> Wanted:
    """What plans read of the encoders that are there; `text` is a kind here."""
    kinds, keys = frozenset(kinds), dict[Filed, list[np.ndarray]]()
    users: dict[Filed, list[tuple[str, Unit]]] = {}
    joined, texts = dict[str, tuple[Clip, ...]](), dict[str, None]()
    for plan in plans:
        for (story, shot), by_kind in plan.frames.items():
            clip = plan.clips[story, shot]
            assert clip.facts is not None
            for kind, frames in by_kind.items():
                if kind in kinds and len(frames):
                    filed = (kind, clip.facts.sha256)
                    keys.setdefault(filed, []).append((frames + clip.start).astype(np.int32)[:, None])
                    users.setdefault(filed, []).append((story, tuple(shot)))
        for (story, unit, _), clips in plan.units.items() if VICLIP in kinds else ():
            for one in clips:
                joined[one.id] = one.parts
                keys.setdefault((VICLIP, one.id), []).append(one.frames[None])
                users.setdefault((VICLIP, one.id), []).append((story, unit))
        for pieces in plan.texts.values() if TEXT in kinds else ():
            texts.update(dict.fromkeys(pieces))
    if texts:
        keys[TEXT, TEXTS] = [text_keys(list(texts))]
    once = {filed: np.unique(np.concatenate(parts), axis=0) for filed, parts in keys.items()}
    return Wanted(once, joined, tuple(texts), users)


def jobs_for(
    want: Wanted, shelves: Mapping[str, Shelf], unmeasured: Iterable[Clip], files: Mapping[str, Path]
) -> list[Job]:
    """Jobs for what is not on disk.

    Args:
        want: what is read.
        shelves: by kind, `text` among them.
        unmeasured: shots without weight-free numbers.
        files: SHA-256 of a video -> where it lies.
    """
    frames: dict[str, dict[str, np.ndarray]] = {}
    clips: list[ClipJob] = []
    texts: tuple[str, ...] = ()
    for (kind, name), keys in want.keys.items():
        lacks = shelves[kind].missing(name, keys)
        if not lacks.any():
            continue
        if kind == TEXT:
            lacking = shelves[kind].missing(name, text_keys(list(want.texts)))
            texts = tuple(text for text, lack in zip(want.texts, lacking, strict=True) if lack)
        elif kind == VICLIP:
            parts = want.parts[name]
            clips += [ClipJob(unit=name, key=key, sources=tuple(sources(parts, key))) for key in keys[lacks]]
        else:
            frames.setdefault(name, {})[kind] = keys[lacks][:, 0].astype(np.int64)
    measure: dict[str, dict[str, Clip]] = {}
    for clip in unmeasured:
        assert clip.facts is not None
        measure.setdefault(clip.facts.sha256, {})[clip.id] = clip
    found = _together(clips, [*frames, *measure])
    return [
        Job(
            files=tuple(
                FileWork(
                    sha256=sha256,
                    path=files[sha256],
                    measure=tuple(sorted(measure.get(sha256, {}).values(), key=lambda clip: clip.start)),
                    frames=frames.get(sha256, {}),
                )
                for sha256 in part
            ),
            clips=tuple(clip for clip in clips if clip.sources[0][0] in part),
        )
        for part in found
    ] + ([Job(texts=texts)] if texts else [])


def _together(clips: Sequence[ClipJob], others: Iterable[str]) -> list[dict[str, None]]:
    """Files in groups, such that no clip needs files of two; in order of appearance."""
    root: dict[str, str] = {}

    def top(sha256: str) -> str:
        while root.setdefault(sha256, sha256) != sha256:
            sha256 = root[sha256]
        return sha256

    order = list(dict.fromkeys([*others, *(sha256 for clip in clips for sha256, _ in clip.sources)]))
    for clip in clips:
        for sha256, _ in clip.sources[1:]:
            root[top(sha256)] = top(clip.sources[0][0])
    groups: dict[str, dict[str, None]] = {}
    for sha256 in order:
        groups.setdefault(top(sha256), {})[sha256] = None
    return list(groups.values())
