"""A training set that lives in memory: subjects as patterns, shots that show one each, and their latents."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from memento_model.codecs.codec import GreyLatents
from memento_model.conditioning import Given
from memento_model.config import FrameGrid, ModelConfig
from memento_model.distributed.launch import World
from memento_model.training.config import (
    DataConfig,
    ObjectiveConfig,
    OptimConfig,
    ScaleConfig,
    TrainConfig,
    WatchConfig,
)
from memento_model.training.samples import Clip, ReconTarget, TrainSequence
from memento_model.training.trainer import Feed, build

MODEL = ModelConfig(
    width=32, num_heads=2, num_layers=2, ffn_width=32, freq_dim=16, text_dim=8, text_len=4, lora_rank=2,
    lora_alpha=2, num_local_queries=2, num_global_queries=2, selected_local=2, selected_global=1,
)  # fmt: skip
GRID = FrameGrid(num_frames=9, height=16, width=32)
CPU = World(device=torch.device("cpu"))


def config(output="unused", **more):
    made = TrainConfig(
        name="tiny",
        train_base=True,
        model=MODEL,
        codec="dct",
        text="hashed",
        grid=GRID,
        data=DataConfig(validation_share=0.0),
        objective=ObjectiveConfig(last_frames=3, bank_frames=3),
        optim=OptimConfig(lr=1e-3, warmup_steps=2),
        scale=ScaleConfig(dtype="fp32", checkpoint_activations=False),
        watch=WatchConfig(log_every=1, validate_every=0, sample_every=0, save_every=2, trackers=()),
        steps=4,
        output=str(output),
    )
    return replace(made, **more)


def sequences(num=2, clips=4):
    """Clip i shows subject i % 2; the target of the second clip is a frame of the first."""
    return [
        TrainSequence(
            sequence_id=f"s{n}",
            film_id=f"film{n}",
            clips=tuple(
                Clip(
                    clip_id=f"s{n}-{i}",
                    path=f"s{n}-{i}.mp4",
                    num_frames=12,
                    caption=f"global caption: all of {n}; shot caption: subject {i % 2}",
                    global_caption=f"all of {n}",
                    start_frame=12 * i,
                    candidates=(0, 4, 8),
                )
                for i in range(clips)
            ),
            targets=(ReconTarget(recon_id=f"s{n}-r0", clip=0, frame=4, caption="subject 0"),),
        )
        for n in range(num)
    ]


def _numbers(name, *shape):
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class InMemory:
    """Latents that depend on names alone."""

    def __init__(self, grid=GRID, model=MODEL):
        self.shape, self.model = grid.latent_shape, model

    def shot(self, sequence, clip):
        return _numbers(f"shot {sequence.clips[clip].clip_id}", *self.shape)

    def given_first(self, sequence, clip):
        return Given(latents_cfhw=self.shot(sequence, clip) * 0.5, num_latent_frames=1)

    def frame(self, sequence, frame):
        c, _, h, w = self.shape
        return _numbers(f"{sequence.clips[frame.clip].clip_id} {frame.frame}", c, h, w)

    def grey(self):
        c, f, h, w = self.shape
        return GreyLatents(video_cfhw=torch.zeros(c, f, h, w), frame_cfhw=torch.zeros(c, 1, h, w))

    def text(self, prompt):
        rows = 1 + len(prompt) % self.model.text_len
        return _numbers(prompt, rows, self.model.text_dim)


def run_of(made=None, world=CPU, data=None):
    """A run ready to train."""
    made = made or config()
    run = build(made, world)
    run.feed = Feed(data or sequences(), InMemory(made.grid, made.model), made, world.device)
    return run


class Quiet:
    """Watches and keeps nothing but what happened."""

    def __init__(self):
        self.done, self.saved = [], []

    def begin(self, run):
        self.began = run.step

    def step(self, run, done):
        self.done.append(done)

    def end(self, run):
        self.ended = run.step

    def save(self, run):
        self.saved.append(run.step)

    def finish(self):
        self.finished = True


def weights(run):
    return {name: p.detach().clone() for name, p in run.optimiser.parameters.items()}


def spread_run(world, folder, steps, shard, accumulate=1, ema=None):
    """Train in every process of a crew, going on where there is a checkpoint: losses of each step."""
    from pathlib import Path

    from memento_model.training.state import Checkpoints, resume, step_folders

    made = config(
        steps=steps,
        scale=replace(config().scale, accumulate=accumulate, shard=shard),
        optim=replace(config().optim, schedule="constant", ema_decay=ema),
    )
    run, quiet = run_of(made, world), Quiet()
    found = step_folders(Path(folder))
    if found:
        resume(run, found[-1])
    from memento_model.training.trainer import fit

    fit(run, quiet, Checkpoints(Path(folder), 9))
    return [[loss[0].item() for loss in done.losses] for done in quiet.done], run.batch
