"""A plain training step: the peer of `perf.train_step`.

Written from the description of the published trainer, with its choices and none of ours:

    every step       text of the prompts, 81-frame (here: shot-length) latents of shot and condition, and each
                     memory frame alone, go through text encoder and codec again
    transformer      `perf.model_plain`: modulation for every token, positions in complex128, full score
                     matrix, fp32 stream; adapters beside every linear layer; each block is computed again in
                     the backward pass
    queries          tokens of full width, keys projected twice, inside two nested checkpoints
    optimiser        AdamW and clipping as PyTorch makes them by default

Left out, to the peer's advantage: decoding (its loader's processes do that), its prints, timers and garbage
collections in every step, and moving text encoder and saved tensors between host and device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from memento_model.codecs.codec import Codec, GreyLatents
from memento_model.codecs.text import TextEncoder
from memento_model.conditioning import Memory, condition_shot, given_frames, query_positions
from memento_model.config import FrameGrid, ModelConfig
from memento_model.flow import mix
from memento_model.nn.keyframe_query import select
from memento_model.nn.lora import ADAPTER
from memento_model.nn.losses import velocity_loss
from memento_model.training.config import TrainConfig
from memento_model.training.samples import Draw, Sample
from perf.model_plain import PlainQuery, PlainTransformer

Pictures = Mapping[tuple[int, int], Tensor]
"""Decoded frames in [-1, 1], [3, h, w], by clip and frame."""


class PlainTrained(PlainTransformer):
    """The plain transformer with adapters, its blocks computed again in the backward pass.

    Attributes:
        recompute: False keeps everything for the backward pass instead.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: ModelConfig, factor: float) -> None:
        super().__init__(weights, config)
        self.factor = factor
        self.recompute = True

    def block(self, *arguments: Any) -> Tensor:
        """As in a forward pass, keeping its input alone."""
        if not self.recompute:
            return super().block(*arguments)
        return checkpoint(super().block, *arguments, use_reentrant=False)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """The layer and what its adapter adds."""
        if f"{name}.base_layer.weight" not in self.weights:
            return super().linear(name, x)
        base = super().linear(f"{name}.base_layer", x)
        down, up = (self.weights[f"{name}.lora_{part}.{ADAPTER}.weight"] for part in "AB")
        return base + F.linear(F.linear(x, down), up) * self.factor


class PlainStep:
    """One training step after another, on copies of a run's weights.

    Args:
        transformer: parameters by name, adapters included; all of them are trained.
        query: parameters of the queries.
        config: of the run.
        factor: of the adapters.
    """

    def __init__(
        self,
        transformer: Mapping[str, Tensor],
        query: Mapping[str, Tensor],
        config: TrainConfig,
        factor: float,
    ) -> None:
        self.config = config
        self.weights = _copies(transformer)
        self.query_weights = _copies(query)
        self.transformer = PlainTrained(self.weights, config.model, factor)
        self.query = PlainQuery(self.query_weights, config.model)
        parameters = [*self.weights.values(), *self.query_weights.values()]
        optim = config.optim
        self.parameters = parameters
        self.adam = torch.optim.AdamW(
            [
                {"params": list(self.weights.values()), "lr": optim.lr},
                {"params": list(self.query_weights.values()), "lr": optim.lr * optim.query_lr_ratio},
            ],
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
        )

    def encoded(
        self, sample: Sample, draw: Draw, pictures: Pictures, codec: Codec, text: TextEncoder
    ) -> dict[str, Any]:
        """Latents and text of a step, all made anew; of a sample with one reconstruction slot."""
        grid, clip = self.config.grid, sample.sequence.clips[sample.target]

        def alone(number: int, frame: int) -> Tensor:
            return codec.encode(pictures[number, frame][None, :, None])[0, :, 0]

        shot = torch.stack([pictures[sample.target, f] for f in range(grid.num_frames)], dim=1)
        (target,) = draw.identities
        prompts = (clip.caption, clip.caption, clip.global_caption, target.caption)
        rows = [text.encode([prompt])[0] for prompt in prompts]
        given = given_frames(codec, shot[:, :1], grid) if draw.first_frame else None
        return {
            "candidates": torch.stack([alone(f.clip, f.frame) for f in draw.candidates], dim=1),
            "times": tuple(sample.sequence.clips[f.clip].start_frame + f.frame for f in draw.candidates),
            "target": codec.encode(shot[None])[0],
            "identity": alone(target.clip, target.frame)[:, None],
            "given": given,
            "grey": grey(codec, grid, video=given is None),
            "text": rows,
            "start": clip.start_frame,
        }

    def loss(self, made: Mapping[str, Any], timestep_b: Tensor, sigma: float, noise_seed: int) -> Tensor:
        """Memory elected, everything noised, velocity compared."""
        candidates, times = made["candidates"], made["times"]
        positions = torch.tensor([query_positions(times, made["start"])])
        contexts = [self.transformer.embed_text(rows[None]) for rows in made["text"][1:3]]
        scores = checkpoint(self._scores, candidates[None], positions, *contexts, use_reentrant=False)
        selection = select(scores, self.config.model, gradient="picked")
        picked = selection.picked_bk[0].tolist()
        memory = Memory(
            latents_cmhw=selection.take(candidates[None])[0], times=tuple(times[i] for i in picked)
        )
        conditioning = condition_shot(
            made["grey"],
            memory=memory,
            given=made["given"],
            start_frame=made["start"],
            num_identities=1,
            compat=self.config.compat,
        )
        clean = conditioning.clean(made["identity"][None], made["target"][None])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(noise_seed))
        prediction = self.transformer(
            conditioning.model_input(mix(clean, noise, sigma)),
            timestep_b,
            made["text"][0][None],
            positions_bf=conditioning.positions_bf,
            layout=conditioning.layout,
            identity_text=[made["text"][3][None]],
        )
        weight = self.config.objective.identity_weight
        return velocity_loss(prediction, clean, noise, conditioning.layout, identity_weight=weight).total

    def _scores(self, *arguments: Tensor) -> Tensor:
        return checkpoint(self.query, *arguments, use_reentrant=False)

    def update(self, loss: Tensor) -> None:
        """Backward pass, clipping, AdamW."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optim.max_grad_norm)
        self.adam.step()
        self.adam.zero_grad()


def grey(codec: Codec, grid: FrameGrid, *, video: bool) -> GreyLatents:
    """Grey encoded anew: a frame and, where no first frame stands before it, a shot."""
    size = (grid.height, grid.width)
    frame = codec.encode(torch.zeros(1, 3, 1, *size))[0]
    if not video:  # only its size is asked for
        return GreyLatents(frame.expand(-1, grid.latent_shape[1], -1, -1), frame)
    return GreyLatents(codec.encode(torch.zeros(1, 3, grid.num_frames, *size))[0], frame)


def _copies(weights: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(value.detach().clone()) for name, value in weights.items()}
