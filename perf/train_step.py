"""Training steps per second: ours against a plain one with the published trainer's choices.

    python -m perf.train_step [--repeat 7] [--threads 1]
    python -m perf.train_step --device cuda [--blocks 40]     # full size, 46,800 tokens

Both train copies of the same weights (the debug recipe's) on the same samples of a small dataset written for
the occasion: ours reads its cache, `perf.train_plain` encodes anew in every step. Losses are compared before
and after some updates. Calls alternate, and a ratio is the median of the ratios of neighbouring calls, so
that other work on the machine touches both sides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memento_model.codecs.codec import Codec
from memento_model.codecs.text import TextEncoder
from memento_model.nn.lora import lora_factor
from memento_model.training.cache_encoders import Encoders
from memento_model.training.cache_fill import fill
from memento_model.training.cache_plan import plan_cache
from memento_model.training.clip_frames import read_frames, to_model_range
from memento_model.training.config import TrainConfig
from memento_model.training.inputs import TrainInputs, read_inputs
from memento_model.training.latent_cache import CachedLatents
from memento_model.training.recipes import debug
from memento_model.training.trainer import Feed, Run, build, settle_gradients, train_step
from perf.model import ratio
from perf.train_encoders import NarrowEncoders
from perf.train_plain import Pictures, PlainStep

GOALS = {"transformer alone": 1.5, "with narrow networks as encoders": 5.0}
CLIPS, FRAMES, SIZE = 4, 24, (48, 80)
UPDATES = 3
"""After so many of both, losses are compared again."""
TOLERANCE = 1e-3


@dataclass
class Both:
    """Our run and its peer, at the same place of the same data.

    Attributes:
        run: ours, with an open cache.
        plain: the peer, on copies of the weights.
        codec, text: what the peer encodes with.
        pictures: decoded frames by sequence.
        count: samples that the peer has done.
    """

    run: Run
    plain: PlainStep
    codec: Codec
    text: TextEncoder
    pictures: dict[str, Pictures]
    count: int = 0

    def ours(self) -> float:
        """A step from the cache; its loss."""
        return float(train_step(self.run).losses[0][0])

    def theirs(self) -> float:
        """A step from pixels and words; its loss."""
        made = self.encoded(self.count)
        loss = self.plain_loss(made, self.count)
        self.plain.update(loss)
        self.count += 1
        return loss.item()

    def encoded(self, count: int) -> dict[str, Any]:
        """What the peer encodes for a sample."""
        assert self.run.feed is not None
        sample, draw = self.run.feed.drawn(count)
        pictures = self.pictures[sample.sequence.sequence_id]
        return self.plain.encoded(sample, draw, pictures, self.codec, self.text)

    def plain_loss(self, made: dict[str, Any], count: int) -> Tensor:
        """The peer's forward pass, at the noise of that sample."""
        assert self.run.feed is not None
        _, _, prepared = self.run.feed.prepared(count)
        level = prepared.level
        return self.plain.loss(made, level.timestep_b, float(level.sigma_b[0]), prepared.noise_seed)


def settings(folder: Path) -> TrainConfig:
    """The debug recipe on the set in `folder`, every sample with a slot; queries learn the published way."""
    config = debug()
    return replace(
        config,
        compat=replace(config.compat, query_gradient="picked"),
        data=replace(config.data, dataset=str(folder / "set.json"), cache=str(folder / "cache")),
        objective=replace(
            config.objective,
            identity_probability=1.0,
            skip_prior_probability=0.0,
            drop_probability=0.0,
            drawn_picks=False,
        ),
        optim=replace(config.optim, warmup_steps=0, schedule="constant"),
        output=str(folder / "run"),
    )


def write_set(folder: Path) -> None:
    """Two sequences of four clips with a square that moves over a texture, in the official JSON form."""
    import av

    listed = []
    for name in ("a", "b"):
        clips = []
        for number in range(CLIPS):
            path = folder / f"{name}{number}.mp4"
            random = np.random.default_rng([ord(name), number])
            ground = random.integers(30, 200, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
            ground = ground.repeat(8, 0).repeat(8, 1)
            with av.open(str(path), "w") as container:
                video = container.add_stream("libx264", rate=16, options={"crf": "10"})
                video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
                video.codec_context.time_base = Fraction(1, 16)
                for k in range(FRAMES):
                    picture = ground.copy()
                    picture[8:24, 2 * k : 2 * k + 16] = (250, 40, 10 * k)
                    container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(video.encode(None))
            caption = f"global caption: [Person A]: a diver in red; shot caption: [Person A] swims, {number}."
            clips.append({"video_path": path.name, "caption": caption, "sequence_order": number})
        target = {"clip_index": 0, "frame_in_clip_16fps": 8, "caption": "[Person A]: a diver in red, near."}
        listed.append(
            {"sequence_id": name, "sequence_clips": clips, "reconstruct_targets": [target], "subjects": []}
        )
    (folder / "set.json").write_text(json.dumps(listed), encoding="utf-8")


def decoded(inputs: TrainInputs, config: TrainConfig) -> dict[str, Pictures]:
    """Every frame of the set, as a data loader hands it over."""
    made: dict[str, Pictures] = {}
    for sequence in inputs.train:
        frames: dict[tuple[int, int], Tensor] = {}
        for number, clip in enumerate(sequence.clips):
            read = read_frames(clip.path, range(clip.num_frames), config.grid)
            frames |= {(number, f): to_model_range(picture) for f, picture in read.items()}
        made[sequence.sequence_id] = frames
    return made


def open_both(config: TrainConfig, encoders: Encoders) -> Both:
    """Fill the cache, build the run, copy its weights for the peer."""
    inputs = read_inputs(config)
    folder = Path(str(config.data.cache))
    plan, key = plan_cache(inputs.sequences, config), encoders.key(config)
    fill(folder, plan, key, encoders)
    run = build(config)
    run.feed = Feed(inputs.train, CachedLatents(folder, plan, key), config)
    assert run.query is not None
    plain = PlainStep(
        dict(run.transformer.named_parameters()),
        dict(run.query.named_parameters()),
        config,
        lora_factor(config.model, config.compat),
    )
    cpu = torch.device("cpu")
    return Both(run, plain, encoders.codec(cpu), encoders.text(cpu), decoded(inputs, config))


def check(both: Both) -> float:
    """Train both some steps; the largest relative difference of their losses."""
    worst = 0.0
    for _ in range(UPDATES):
        ours, theirs = both.ours(), both.theirs()
        worst = max(worst, abs(ours - theirs) / theirs)
    assert worst <= TOLERANCE, f"losses of ours and the plain step differ by {worst:.1e}"
    return worst


def transformer_calls(both: Both) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step of either side from the same latents and text: forward, backward, optimiser."""
    assert both.run.feed is not None
    run, prepared = both.run, both.run.feed.prepared(0)[2]
    made = both.encoded(0)

    def ours() -> None:
        run.forward(prepared).loss.total.backward()
        settle_gradients(run)
        run.optimiser.step(run.step)

    return ours, lambda: both.plain.update(both.plain_loss(made, 0))


def measure(repeat: int) -> list[str]:
    """Rows of the report."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_set(folder)
        config = settings(folder)
        own = Encoders.of(config)
        narrow = NarrowEncoders(codec_path=None, text_path=None, text_dim=own.text_dim, text_len=own.text_len)
        for what, encoders in (("the debug tier's encoders", own), ("narrow networks as encoders", narrow)):
            both = open_both(config, encoders)
            difference = check(both)
            if encoders is own:
                rows += transformer_rows(both, repeat)
            rows.append(line(f"with {what}", *ratio(both.ours, both.theirs, repeat)))
            rows.append(f"| losses differ by | {difference:.0e} | | | | |")
    return rows


def transformer_rows(both: Both, repeat: int) -> list[str]:
    """A step without encoders; and what of it is the peer's recomputing of blocks."""
    calls = transformer_calls(both)
    rows = [line("transformer alone", *ratio(*calls, repeat))]
    both.plain.transformer.recompute = False
    rows.append(line("transformer alone, plain keeps activations", *ratio(*calls, repeat)))
    both.plain.transformer.recompute = True
    return rows


def line(what: str, ours_s: float, plain_s: float, times: float) -> str:
    """A row: seconds of either, steps a second, the ratio and what it should be."""
    goal = GOALS.get(what)
    told = "" if goal is None else f"{'met' if times >= goal else 'missed'} (>= {goal:g})"
    return f"| {what} | {ours_s * 1e3:.0f} | {plain_s * 1e3:.0f} | {1 / ours_s:.1f} | {times:.2f} | {told} |"


def report(repeat: int) -> str:
    """Markdown of a run on this machine's CPU."""
    shape = debug().model
    head = (
        f"### a training step of the debug recipe: width {shape.width}, {shape.num_layers} blocks, base and "
        f"adapters trained, fp32 on {torch.get_num_threads()} thread(s) of the CPU"
    )
    columns = "| what | ours ms | plain ms | our steps/s | plain / ours | goal |\n|---|---|---|---|---|---|"
    return "\n".join([head, "", columns, *measure(repeat)])


def main(arguments: list[str] | None = None) -> None:
    """Print the report of the CPU or of the GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--blocks", type=int, default=40, help="of the full-size model, with --device cuda")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        from perf.train_full import full_report

        print(full_report(options.blocks, options.repeat))
        return
    print(report(options.repeat))
    print(
        "\nNarrow networks are Wan's codec and umT5 at the debug model's scale. At full size the codec is 5 "
        "% of a step's operations, so there its cache saves a smaller share than here."
    )
    print("\nFull size: not measured here; `--device cuda` on a machine with a GPU does.")


if __name__ == "__main__":
    main()
