"""Latents and text rows of a run, read from the cache: no codec and no text encoder takes part in training.

`CachedLatents` is what `memento_model.training.objective` reads its samples from. Opening it checks that
everything a run can ask for is there; reading compares checksums.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from memento_model.codecs.codec import GreyLatents
from memento_model.conditioning import Given
from memento_model.errors import DataError
from memento_model.training import cache_files as files
from memento_model.training.cache_files import (
    FRAME,
    GIVEN,
    GREY_FRAME,
    GREY_VIDEO,
    SHOT,
    CacheKey,
    Damaged,
    Shard,
)
from memento_model.training.cache_plan import CachePlan
from memento_model.training.samples import Frame, TrainSequence

MAX_SHOWN = 8
RECENT_BYTES = 512 << 20


class CachedLatents:
    """A filled cache, open. Values are fp32, whatever is stored; the same question has the same answer.

    Args:
        folder: of the cache.
        plan: what the run can ask for.
        key: of the encoders.
        recent_bytes: how much of what was read last stays in memory.

    Raises:
        DataError: something is missing, damaged or of another encoder; a line for each file, and how to mend.
    """

    def __init__(
        self, folder: Path, plan: CachePlan, key: CacheKey, *, recent_bytes: int = RECENT_BYTES
    ) -> None:
        self.folder, self.key = folder, key
        self._recent: OrderedDict[tuple[Path, str], Tensor] = OrderedDict()
        self._room = recent_bytes
        faults: list[str] = []
        self._clips = self._open_clips(plan, faults)
        self._grey = self._open(
            files.grey_path(folder, key), "grey", {GREY_VIDEO, GREY_FRAME}, "grey", faults
        )
        self._texts, damaged = files.text_index(folder, key)
        faults += [str(error) for error in damaged]
        if lost := [p for p in plan.prompts if files.prompt_name(p) not in self._texts]:
            faults.append(
                f"{len(lost)} of {len(plan.prompts)} prompts are not encoded ({lost[0][:60]!r}, ...)"
            )
        if faults:
            raise DataError(*_shown(faults), self._remedy())

    def _open_clips(self, plan: CachePlan, faults: list[str]) -> dict[str, Shard]:
        contents = files.digests(self.folder, plan.clips)
        found = {
            path: self._open(
                files.clip_path(self.folder, self.key, contents[path]),
                contents[path],
                needs.names,
                needs.clip_id,
                faults,
            )
            for path, needs in plan.clips.items()
        }
        return {path: shard for path, shard in found.items() if shard is not None}

    def _open(self, path: Path, content: str, names: set[str], owner: str, faults: list[str]) -> Shard | None:
        try:
            shard = Shard.open(path, self.key.latents, content)
        except FileNotFoundError:
            faults.append(f"{owner}: not encoded")
        except Damaged as error:
            faults.append(f"{owner}: {error}")
        else:
            if not (lost := sorted(names - shard.checksums.keys())):
                return shard
            faults.append(f"{owner}: {path} lacks {len(lost)} of {len(names)} latents ({lost[0]}, ...)")
        return None

    def _remedy(self) -> str:
        others = [
            place.name
            for kind, mine in (("latents", self.key.latents), ("text", self.key.texts))
            for place in sorted((self.folder / kind).glob("*"))
            if place.name != mine
        ]
        there = f" (it also holds {', '.join(others)})" if others else ""
        return (
            f"{self.folder} is not complete for {self.key.latents} and {self.key.texts}{there}; "
            "run `memento cache` with the same settings"
        )

    def shot(self, sequence: TrainSequence, clip: int) -> Tensor:
        """Latent of a clip's first frames, the length of a shot: [c, f, h, w]."""
        return self._of_clip(sequence, clip, SHOT)

    def given_first(self, sequence: TrainSequence, clip: int) -> Given:
        """The clip's first frame with grey behind it, encoded as a shot."""
        return Given(latents_cfhw=self._of_clip(sequence, clip, GIVEN), num_latent_frames=1)

    def frame(self, sequence: TrainSequence, frame: Frame) -> Tensor:
        """Latent of one frame encoded alone: [c, h, w]."""
        return self._of_clip(sequence, frame.clip, f"{FRAME}{frame.frame}")

    def grey(self) -> GreyLatents:
        """The codec's constants for a shot."""
        assert self._grey is not None
        return GreyLatents(self._read(self._grey, GREY_VIDEO), self._read(self._grey, GREY_FRAME))

    def text(self, prompt: str) -> Tensor:
        """Un-padded rows of the text encoder [t, d].

        Raises:
            DataError: the prompt is not in the cache.
        """
        name = files.prompt_name(prompt)
        if name not in self._texts:
            raise DataError(f"{self.folder}: the prompt {prompt[:60]!r} is not encoded", self._remedy())
        return self._read(self._texts[name], name)

    def _of_clip(self, sequence: TrainSequence, clip: int, name: str) -> Tensor:
        asked = sequence.clips[clip]
        shard = self._clips.get(asked.path)
        if shard is None or name not in shard.checksums:
            raise DataError(f"{asked.clip_id}: {name} is not encoded in {self.folder}", self._remedy())
        return self._read(shard, name)

    def _read(self, shard: Shard, name: str) -> Tensor:
        place = (shard.path, name)
        if place in self._recent:
            self._recent.move_to_end(place)
            return self._recent[place].clone()
        try:
            value = shard.read(name).to(torch.float32)
        except Damaged as error:
            raise DataError(f"{error}; run `memento cache --verify`") from error
        self._recent[place] = value
        self._room -= value.nbytes
        while self._room < 0 and self._recent:
            self._room += self._recent.popitem(last=False)[1].nbytes
        return value.clone()


def _shown(faults: Sequence[str]) -> list[str]:
    more = len(faults) - MAX_SHOWN
    return [*faults[:MAX_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
