"""Small pictures of shots for the page, decoded once and kept as JPEG; a bounded number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmark.evaluation import Evaluation
from benchmark.report.schema import WorstPair
from benchmark.stories import ShotKey
from benchmark.submission import Clip
from curation.video.decode import BadInput

PICTURE_WIDTH = 256
POSTER_WIDTHS = {640: 0.16, 480: 0.19, 320: 0.25, 192: 0.33}
"""Pixels -> bytes for each pixel, as base64: the most that was seen of generated films at `QUALITY`."""
QUALITY = 68
MAX_BYTES = 6_000_000
"""Of all pictures together, as base64: what a page with them may grow by."""
MAX_POSTERS = 720


class Album:
    """Pictures by id until there is no room; what did not fit or could not be decoded is counted."""

    def __init__(self, room: int = MAX_BYTES) -> None:
        self.pictures: dict[str, str] = {}
        self.left_out = 0
        self.room = room

    def add(self, clip: Clip, *, middle: bool, width: int) -> str:
        """Id of a clip's picture; empty if it cannot be had.

        Args:
            clip: looked at already (`probed`).
            middle: of its middle frame, which must be decoded up to, else of the first.
            width: pixels, at most; a smaller video stays as small as it is.
        """
        name = f"{clip.id}:{'middle' if middle else 'first'}"
        if name in self.pictures:
            return name
        jpeg = picture(clip, middle=middle, width=width) if self.room > 0 else b""
        text = base64.b64encode(jpeg).decode()
        if not text or len(text) > self.room:
            self.left_out += 1
            return ""
        self.room -= len(text)
        self.pictures[name] = text
        return name


def picture(clip: Clip, *, middle: bool, width: int) -> bytes:
    """A JPEG of a clip; empty if it cannot be decoded."""
    import av
    from PIL import Image

    from curation.video.decode import open_video

    wanted = clip.start + (clip.num_frames // 2 if middle else 0)
    rate = clip.facts.fps if clip.facts else 0.0
    try:
        with open_video(str(clip.path)) as container:
            frame = _frame(container, wanted, rate)
    except (BadInput, StopIteration, OSError, av.error.FFmpegError):
        return b""
    width = min(width, max(2, frame.width // 2 * 2))
    height = max(2, round(width * frame.height / frame.width / 2) * 2)
    rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _frame(container: Any, wanted: int, rate: float) -> Any:
    """A frame by its number, from the key frame before it; exact for constant frame rates."""
    video = container.streams.video[0]
    if not wanted or not rate or video.time_base is None:
        return next(frame for i, frame in enumerate(container.decode(video)) if i >= wanted)
    # Half a frame before it, so that rounding cannot give the one after.
    pts = (video.start_time or 0) + int((wanted - 0.5) / rate / video.time_base)
    container.seek(pts, stream=video)
    return next(frame for frame in container.decode(video) if frame.pts is not None and frame.pts >= pts)


def with_pictures(
    evaluation: Evaluation, pairs: Sequence[WorstPair], album: Album
) -> tuple[list[WorstPair], dict[str, str]]:
    """The worst pairs with their pictures, then a poster for each shot as far as there is room.

    Returns:
        The pairs, and `method/story/SS_HH` -> picture.
    """
    clips = {method.name: method.submission.clips for method in evaluation.methods}
    found = []
    for pair in pairs:
        shots = clips[pair.method].get(pair.story, {})
        ids = [
            album.add(shots[_key(stem)], middle=True, width=PICTURE_WIDTH) if _key(stem) in shots else ""
            for stem in (pair.first, pair.second)
        ]
        found.append(replace(pair, pictures=ids))
    posters: dict[str, str] = {}
    shots_of_all = [shots for stories in clips.values() for shots in stories.values()]
    width = poster_width([clip for shots in shots_of_all for clip in shots.values()], album.room)
    for key, story in evaluation.stories.items():
        for shot in story.shots:
            for method, stories in clips.items():
                clip = stories.get(key, {}).get(shot.key)
                if clip is None or clip.facts is None:
                    continue
                if len(posters) >= MAX_POSTERS:
                    album.left_out += 1
                elif name := album.add(clip, middle=False, width=width):
                    posters[f"{method}/{key}/{shot.key.stem}"] = name
    return found, posters


def poster_width(clips: Sequence[Clip], room: int) -> int:
    """Width of the posters of these clips, pixels: the player shows a poster as wide as itself.

    Args:
        clips: looked at already (`probed`).
        room: bytes for all of them.
    """
    shapes = [clip.facts.height / clip.facts.width for clip in clips if clip.facts][:MAX_POSTERS]
    for width, dense in POSTER_WIDTHS.items():
        if dense * width * width * sum(shapes) <= room:
            return width
    return min(POSTER_WIDTHS)


def _key(stem: str) -> ShotKey:
    scene, shot = stem.split("_")
    return ShotKey(int(scene), int(shot))
