"""Sheets that show what an expert has learned: a shot, the reconstructed subject, and which memory it picked.

One PNG per sheet. A sheet is a column of rows of pictures with a line of text over each row:

    candidates   every frame that could be remembered; picked ones framed (green by the local group, orange by
                 the global one), with both scores
    subject      the reconstruction target as it is, and as the model makes it
    shot         the target shot as it is, and as the model makes it

Axes: c channels, f latent frames, t pixel frames, h and w rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from memento_model.codecs.codec import Codec
from memento_model.conditioning import Memory, condition_shot
from memento_model.config import Expert, Layout
from memento_model.flow import MEMENTO
from memento_model.nn.transformer import MementoTransformer
from memento_model.story.sampler import Sampling, ShotText, sample
from memento_model.story.video import to_pixels
from memento_model.training.objective import Prepared, bank_size, elect, prepare
from memento_model.training.samples import Draw, Sample, earlier_targets
from memento_model.training.trainer import Feed, Run
from memento_model.training.watch import fixed_draw

STEPS = 12
"""Of the solver, for pictures."""
LOCAL, GLOBAL, PLAIN = (60, 180, 75), (245, 130, 48), (90, 90, 90)
SHOWN = 6
"""Frames of a shot on a sheet."""
TEXT_HEIGHT, EDGE, WIDTH = 15, 3, 176


@dataclass(frozen=True)
class Picture:
    """A picture on a sheet: uint8 [h, w, 3], its frame's colour, the text below."""

    pixels_hwc_u8: np.ndarray
    colour: tuple[int, int, int] = PLAIN
    text: str = ""


Row = tuple[str, list[Picture]]


class Painter:
    """Makes the sheets of a run.

    Args:
        feed: where the shown samples come from: held-out ones if there are any.
        codec: loads the codec when the first sheet is made.
        other: the expert of the other noise levels, if it is trained already; else this one stands in.
        count: samples shown, one sheet each.
    """

    def __init__(
        self,
        feed: Feed,
        codec: Callable[[], Codec],
        other: MementoTransformer | None = None,
        count: int = 2,
    ) -> None:
        self.feed, self.other = feed, other
        self._make_codec = codec
        self._codec: Codec | None = None
        told = [s for s in feed.samples if earlier_targets(s)] or feed.samples
        picked = np.linspace(0, len(told) - 1, min(count, len(told))).round().astype(int)
        self.samples = [told[i] for i in picked]

    def __call__(self, run: Run, folder: Path) -> list[Path]:
        """Write the sheets of this moment; all processes call it, the first one writes."""
        if self._codec is None:
            self._codec = self._make_codec()
        made = []
        run.transformer.eval()
        for number, chosen in enumerate(self.samples):
            rows = self._rows(run, chosen, number)
            if run.world.is_first:
                path = folder / f"step-{run.step:06d}-{number}.png"
                write_sheet(path, rows)
                made.append(path)
        run.transformer.train()
        return made

    def _rows(self, run: Run, chosen: Sample, number: int) -> list[Row]:
        config, feed = run.config, self.feed
        drawn = fixed_draw(chosen, number, 0.5, feed.last_frames, config.objective)
        ready = prepare(chosen, drawn, feed.latents, config.expert, config.compat, feed.device)
        with torch.no_grad(), run.computing():
            memory, selection = elect(
                ready, run.transformer, run.query, bank_size(config.objective, run.query)
            )
            latents, layout = generate(run, ready, memory, self.other)
        rows = [self._candidates(chosen, drawn, ready, memory, selection)]
        if layout.identity_frames:
            made = self._images(latents[0, :, layout.identity])
            true = self._images(ready.identity_cfhw)
            title = f"subject to reconstruct: {drawn.identities[0].caption}"
            rows.append((title, [Picture(true[0], text="film"), Picture(made[0], text="model")]))
        shot = chosen.sequence.clips[chosen.target]
        for name, cfhw in (("film", ready.target_cfhw), ("model", latents[0, :, layout.target])):
            rows.append(
                (f"shot, {name}: {shot.caption.partition('shot caption:')[2].strip()}", self._shot(cfhw))
            )
        by = "both experts" if self.other is not None else f"the {config.expert}-noise expert alone"
        if self.other is None and config.expert == "high":
            by += " (the grain that stays is the low-noise expert's part)"
        return [(f"{chosen.sample_id}, step {run.step}, made by {by}, {STEPS} solver steps", []), *rows]

    def _candidates(
        self, chosen: Sample, drawn: Draw, ready: Prepared, memory: Memory, selection: object
    ) -> Row:
        from memento_model.nn.keyframe_query import Selection

        pictures = self._images(ready.candidates_cfhw)
        colours, texts = [PLAIN] * len(pictures), [""] * len(pictures)
        if isinstance(selection, Selection):
            for rank, index in enumerate(selection.picked_bk[0].tolist()):
                colours[index] = LOCAL if rank < selection.num_local else GLOBAL
            pairs = zip(
                selection.local_scores_bf[0].tolist(), selection.global_scores_bf[0].tolist(), strict=True
            )
            texts = [f"L {local:+.3f} G {wide:+.3f}" for local, wide in pairs]
        else:
            kept = set(memory.times)
            colours = [LOCAL if time in kept else PLAIN for time in ready.times]
        made = [
            Picture(p, colour, f"clip {frame.clip} frame {frame.frame} {text}")
            for p, colour, text, frame in zip(pictures, colours, texts, drawn.candidates, strict=True)
        ]
        why = (
            "green: picked for the shot's caption, orange: for the story's"
            if selection
            else "drawn at random"
        )
        return f"memory for clip {chosen.target}; {why}; L, G: scores of either group", made

    def _images(self, latents_cfhw: Tensor) -> list[np.ndarray]:
        """Frames that were encoded alone, as pixels."""
        assert self._codec is not None
        alone = latents_cfhw.float().transpose(0, 1).unsqueeze(2)
        return [to_pixels(self._codec.decode(one[None])[0])[0] for one in alone]

    def _shot(self, latents_cfhw: Tensor) -> list[Picture]:
        assert self._codec is not None
        pixels = to_pixels(self._codec.decode(latents_cfhw[None].float())[0])
        picked = np.linspace(0, len(pixels) - 1, min(SHOWN, len(pixels))).round().astype(int)
        return [Picture(pixels[i], text=f"frame {i}") for i in picked]


def generate(
    run: Run, ready: Prepared, memory: Memory, other: MementoTransformer | None = None, steps: int = STEPS
) -> tuple[Tensor, Layout]:
    """A shot and its subject from noise: latents of the whole layout, and the layout."""
    own = run.config.expert
    conditioning = condition_shot(
        ready.grey,
        memory=Memory(latents_cmhw=memory.latents_cmhw.detach(), times=memory.times),
        start_frame=ready.start_frame,
        num_identities=ready.identity_cfhw.shape[1],
        compat=run.config.compat,
    )

    def experts(expert: Expert) -> MementoTransformer:
        return run.transformer if expert == own or other is None else other

    layout = conditioning.layout
    generator = torch.Generator().manual_seed(ready.noise_seed)
    shape = (1, *ready.target_cfhw.shape[:1], layout.num_frames, *ready.target_cfhw.shape[2:])
    noise = torch.randn(shape, generator=generator).to(ready.target_cfhw)
    sampling = Sampling(
        schedule=replace(MEMENTO, steps=steps),
        guidance={"high": 1.0, "low": 1.0},
        attention="split" if run.config.objective.split_attention else "joint",
    )
    text = ShotText(
        prompt_td=ready.prompt_td,
        negative_td=ready.prompt_td,
        identity_td=ready.identity_td[0] if ready.identity_td else None,
    )
    both: dict[Expert, object] = {"high": conditioning, "low": conditioning}
    return sample(experts, both, text, noise, sampling), layout  # type: ignore[arg-type]


def write_sheet(path: Path, rows: Sequence[Row]) -> None:
    """Rows of pictures under lines of text as one PNG."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=11)
    columns = max(1, max((len(pictures) for _, pictures in rows), default=1))
    columns = min(columns, 8)
    lines: list[tuple[str, list[Picture]]] = []
    for title, pictures in rows:
        lines.append((title, pictures[:columns]))
        lines += [("", pictures[i : i + columns]) for i in range(columns, len(pictures), columns)]
    sample_picture = next((p for _, pictures in rows for p in pictures), None)
    ratio = (
        sample_picture.pixels_hwc_u8.shape[0] / sample_picture.pixels_hwc_u8.shape[1] if sample_picture else 1
    )
    height = round(WIDTH * ratio)
    row_heights = [
        TEXT_HEIGHT * bool(title) + (height + 2 * EDGE + TEXT_HEIGHT if pictures else 0)
        for title, pictures in lines
    ]
    cell = WIDTH + 2 * EDGE + 2
    sheet = Image.new("RGB", (max(columns * cell, 900), sum(row_heights) + 4), (24, 24, 24))
    pen, top = ImageDraw.Draw(sheet), 2
    for (title, pictures), row_height in zip(lines, row_heights, strict=True):
        below = top
        if title:
            pen.text((4, top), title[:170], fill=(235, 235, 235), font=font)
            below += TEXT_HEIGHT
        for column, picture in enumerate(pictures):
            left = column * cell
            box = (left, below, left + WIDTH + 2 * EDGE - 1, below + height + 2 * EDGE - 1)
            pen.rectangle(box, fill=picture.colour)
            image = Image.fromarray(picture.pixels_hwc_u8).resize((WIDTH, height), Image.Resampling.BICUBIC)
            sheet.paste(image, (left + EDGE, below + EDGE))
            pen.text(
                (left + 2, below + height + 2 * EDGE), picture.text[:34], fill=(180, 180, 180), font=font
            )
        top += row_height
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    sheet.save(part, format="PNG")
    part.replace(path)
