"""Loads a published set as Memento's trainer does, written from its described behaviour.

1. Files are read as stored, without rate conversion; target indices count at 16 fps.
2. The first 81 frames are trained on, fewer are cut to 4n+1, targets past them are dropped; memory frames
   are taken at 4 fps from the whole file, ten at most.
3. A target helps only while a later clip is trained.
4. Remote clips of 10 s or more are cut from their middle, which shifts indices; local ones are not.
5. Clips that do not decode become black frames.
6. Sequences of fewer than two clips vanish.
7. The text is split at `shot caption:` after a leading `global caption:`, or used whole for both parts.
8. The table of subjects is not looked at.
9. Containers that do not state their frame count are taken to hold 250.
10. Pronouns are not refused; labels stay in brackets.
11. Frames are scaled to cover 832x480 and centre-cropped.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import av
import duckdb
import numpy as np

HEIGHT, WIDTH, FRAME_NUM = 480, 832, 81
MAX_MEMORY_FRAMES = 10
ASSUMED_FRAMES, ASSUMED_FPS = 250, 24.0


@dataclass
class Item:
    """A sequence as the training loop gets it. Frames are uint8 [N, H, W, 3] RGB."""

    sequence_id: str
    paths: list[Path]
    captions: list[str]
    clips: list[np.ndarray]
    targets: list[dict]
    dropped_targets: int


def sequences(dataset: Path) -> list[dict]:
    """The trainer's JSON list, made from the published views and nothing else."""
    with duckdb.connect(str(dataset / "annotations.duckdb"), read_only=True) as db:
        clips = db.execute(
            "SELECT sequence_id, clip_id, video_path, caption FROM clips ORDER BY sequence_id, clip_index"
        ).fetchall()
        targets = db.execute(
            "SELECT sequence_id, clip_id, frame_in_clip_16fps, caption, image_path FROM recon_targets "
            "ORDER BY recon_id"
        ).fetchall()
    out = []
    for name in dict.fromkeys(row[0] for row in clips):
        mine = [row for row in clips if row[0] == name]
        order = {row[1]: i for i, row in enumerate(mine)}
        out.append(
            {
                "sequence_id": name,
                "sequence_clips": [
                    {"video_path": row[2], "caption": row[3], "sequence_order": order[row[1]]} for row in mine
                ],
                "reconstruct_targets": [
                    {
                        "clip_index": order[row[1]],
                        "frame_in_clip_16fps": row[2],
                        "caption": row[3],
                        "image": row[4],
                    }
                    for row in targets
                    if row[0] == name
                ],
            }
        )
    return out


def load(dataset: Path) -> list[Item]:
    """Everything the trainer would train on."""
    items = []
    for entry in sequences(dataset):
        if len(entry["sequence_clips"]) < 2:
            continue  # vanishes
        paths = [dataset / clip["video_path"] for clip in entry["sequence_clips"]]
        clips = [load_clip(path) for path in paths]
        targets = [
            t for t in entry["reconstruct_targets"] if t["frame_in_clip_16fps"] < len(clips[t["clip_index"]])
        ]
        items.append(
            Item(
                entry["sequence_id"],
                paths,
                [clip["caption"] for clip in entry["sequence_clips"]],
                clips,
                targets,
                len(entry["reconstruct_targets"]) - len(targets),
            )
        )
    return items


def read_video(path: Path) -> np.ndarray:
    """All frames as stored, whatever their times say; black ones if anything goes wrong."""
    try:
        with av.open(str(path)) as container:
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    except (av.error.FFmpegError, ValueError, IndexError):
        return np.zeros((50, HEIGHT, WIDTH, 3), np.uint8)


def load_clip(path: Path) -> np.ndarray:
    """The first 81 frames, fewer cut to 4n+1, scaled to cover 832x480 and centre-cropped."""
    frames = read_video(path)[:FRAME_NUM]
    frames = frames[: (len(frames) - 1) // 4 * 4 + 1]
    return np.stack([cover(frame) for frame in frames])


def cover(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    height, width = frame.shape[:2]
    if (height, width) == (HEIGHT, WIDTH):
        return frame
    scale = max(HEIGHT / height, WIDTH / width)
    size = (round(width * scale), round(height * scale))
    scaled = np.asarray(Image.fromarray(frame).resize(size, Image.BILINEAR))
    top, left = (size[1] - HEIGHT) // 2, (size[0] - WIDTH) // 2
    return scaled[top : top + HEIGHT, left : left + WIDTH]


def header(path: Path) -> tuple[int, float]:
    """Frame count and rate as the container states them, or the trainer's guesses."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return video.frames or ASSUMED_FRAMES, float(video.average_rate or ASSUMED_FPS)


def memory_indices(path: Path, seed: int = 0) -> list[int]:
    """Positions of memory frames: 4 a second over the whole file, at most ten of them, picked at random."""
    count, fps = header(path)
    every = list(range(0, count, max(1, round(fps / 4))))
    return sorted(random.Random(seed).sample(every, min(MAX_MEMORY_FRAMES, len(every))))


def split_text(caption: str) -> tuple[str, str]:
    """(local, global) prompts: the whole caption and its global part, or twice the whole."""
    if caption.startswith("global caption:") and "shot caption:" in caption:
        return caption, caption[len("global caption:") : caption.index("shot caption:")].strip()
    return caption, caption


def usable_targets(item: Item, trained_clip: int) -> list[dict]:
    """Targets that help while a clip is trained: those of clips before it."""
    return [t for t in item.targets if t["clip_index"] < trained_clip]
