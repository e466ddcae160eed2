"""The frames of a video file as every number of the benchmark sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def opened(path: Path | str) -> tuple[dict[str, Any], Iterator[Any]]:
    """A file from its first frame to its last, whatever its time stamps say, on one thread.

    Returns:
        Facts of the stream (`curation.video.probe`), and its `av.VideoFrame`s in the order of presentation.

    Raises:
        BadInput: it is no video; while frames are read, it cannot be decoded.
    """
    from curation.video.decode import decode_span
    from curation.video.probe import probe

    stream, _, _ = probe(str(path))
    return stream, decode_span(str(path), stream, stream["first_pts"], None, threads=1)
