"""A dataset as `make curate` leaves it, small enough for tests: moving blocks, three clips a sequence."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import duckdb
import numpy as np

from memento_model.config import ModelConfig
from memento_model.training.config import DataConfig, TrainConfig
from tests.memento_model.tiny import GRID

CLIP_FRAMES = (13, 21, 17)
TARGETS = ((0, 5), (1, 20))


def write_clip(path: Path, seed: int, num_frames: int, *, fps=16, size=(GRID.height, GRID.width)):
    """A lossless block that moves over a texture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    height, width = size
    ground = random.integers(30, 200, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"qp": "0", "preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = height, width, "yuv444p"
        video.codec_context.time_base = Fraction(1, fps)
        for k in range(num_frames):
            picture = ground.copy()
            picture[8:20, (2 * k) % (width - 8) : (2 * k) % (width - 8) + 8] = (250, 40, 10 * (k % 20))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


def caption(clip: int) -> str:
    return f"global caption: [Person A]: a diver in red; shot caption: [Person A] swims, {clip}."


def write_dataset(folder: Path, num_films=2) -> Path:
    """One sequence of three clips a film, two targets each, and the tables the trainer reads."""
    sequences, clips, targets = [], [], []
    for film in range(num_films):
        name = f"f{film}-q0"
        sequences.append((name, f"f{film}", len(CLIP_FRAMES), "kept"))
        for i, num_frames in enumerate(CLIP_FRAMES):
            path = f"clips/{name}/{i:02d}.mp4"
            write_clip(folder / path, 10 * film + i, num_frames)
            clips.append((f"{name}-{i:02d}", name, i, path, caption(i)))
        targets += [
            (f"{name}-r{k}", name, f"{name}-{clip:02d}", clip, frame, f"[Person A]: a diver in red, {k}")
            for k, (clip, frame) in enumerate(TARGETS)
        ]
    sequences.append(("f9-q0", "f9", 3, "rejected"))
    with duckdb.connect(str(folder / "annotations.duckdb")) as db:
        db.execute("CREATE TABLE sequences (sequence_id TEXT, film_id TEXT, num_shots INT, status TEXT)")
        db.execute(
            "CREATE TABLE clips (clip_id TEXT, sequence_id TEXT, clip_index INT, video_path TEXT, "
            "caption TEXT)"
        )
        db.execute(
            "CREATE TABLE recon_targets (recon_id TEXT, sequence_id TEXT, clip_id TEXT, clip_index INT, "
            "frame_in_clip_16fps INT, caption TEXT)"
        )
        db.executemany("INSERT INTO sequences VALUES (?, ?, ?, ?)", sequences)
        db.executemany("INSERT INTO clips VALUES (?, ?, ?, ?, ?)", clips)
        db.executemany("INSERT INTO recon_targets VALUES (?, ?, ?, ?, ?, ?)", targets)
    return folder


def change(folder: Path, sql: str, *values) -> None:
    with duckdb.connect(str(folder / "annotations.duckdb")) as db:
        db.execute(sql, values)


def write_json(file: Path, listed) -> Path:
    file.write_text(json.dumps(listed), encoding="utf-8")
    return file


def config(dataset: Path, cache: Path, **data) -> TrainConfig:
    """Settings of a run on such a dataset, exact in the cache."""
    model = ModelConfig(width=48, num_heads=2, num_layers=2, ffn_width=64, text_dim=32, text_len=24)
    facts = {"validation_share": 0.0, "cache_dtype": "fp32"} | data
    return TrainConfig(
        name="test", codec="dct", text="hashed", grid=GRID, model=model,
        data=DataConfig(dataset=str(dataset), cache=str(cache), **facts),
    )  # fmt: skip
