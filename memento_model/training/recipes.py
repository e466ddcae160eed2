"""Training runs as functions: each returns a whole configuration, whose fields the command line overrides.

debug                the whole way on two CPU cores in minutes: small model, no weights needed
low_noise_480p       Memento's low-noise expert on Wan2.2-I2V-A14B (paper 4.1)
high_noise_480p      its high-noise expert
storymem_480p        LoRA alone with StoryMem's memory: what Memento is compared with
ablation_baseline, ablation_query, ablation_recon, ablation_disentangled
                     the rows of the paper's Table 2, each adding a part to the one before
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from memento_model.config import Debug, Expert, ModelConfig
from memento_model.training.config import (
    DataConfig,
    ObjectiveConfig,
    OptimConfig,
    ScaleConfig,
    TrainConfig,
    WatchConfig,
)

BASE = "wan22_i2v_a14b"
"""Name of the base weights in `memento weights list`."""


def debug() -> TrainConfig:
    """Trains everything, base included, on the demo dataset: minutes on two cores.

    The base starts from random numbers, so its own weights learn too; latents come from the cosine codec and
    text from hashed words. It shows that all parts work, not what the method can do.

    A dozen samples are soon known by heart, and then memory matters no more. So the queries learn while it
    does: from all candidates, with a heavier reconstruction term, in the first steps alone.
    """
    tier = Debug()
    return TrainConfig(
        name="debug",
        train_base=True,
        model=tier.model,
        codec="dct",
        text="hashed",
        grid=tier.grid,
        data=DataConfig(dataset="out/demo", validation_share=0.0, cache_dtype="fp32"),
        compat=replace(TrainConfig(name="").compat, query_gradient="all"),
        objective=ObjectiveConfig(identity_weight=4.0, drop_probability=0.02, drawn_picks=True),
        optim=OptimConfig(
            lr=2e-3,
            query_lr_ratio=0.1,
            query_steps=300,
            betas=(0.9, 0.95),
            warmup_steps=20,
            min_lr_ratio=0.02,
        ),
        scale=ScaleConfig(dtype="fp32", checkpoint_activations=False),
        watch=WatchConfig(
            log_every=50, validate_every=0, sample_every=500, save_every=250, keep_last=2, trackers=()
        ),
        steps=3000,
        output="out/train/debug",
    )


def low_noise_480p() -> TrainConfig:
    """The low-noise expert as in the paper: LoRA of rank 128 and queries, 81 frames at 832x480."""
    return TrainConfig(
        name="low_noise_480p",
        expert="low",
        base=BASE,
        model=ModelConfig(),
        data=DataConfig(dataset="out/train_set"),
        optim=OptimConfig(lr=1e-5),
        scale=ScaleConfig(dtype="bf16", shard=True, compile=True),
        steps=6000,
        output="out/train/memento_480p",
    )


def high_noise_480p() -> TrainConfig:
    """The high-noise expert, a job of its own with the same data."""
    return replace(low_noise_480p(), name="high_noise_480p", expert="high")


def storymem_480p() -> TrainConfig:
    """StoryMem on the same data: LoRA alone, joint attention, fixed memory positions, no reconstruction."""
    config = low_noise_480p()
    return replace(
        config,
        name="storymem_480p",
        compat=replace(config.compat, memory_positions="storymem"),
        objective=baseline(),
        output="out/train/storymem_480p",
    )


def baseline() -> ObjectiveConfig:
    """No queries, no reconstruction slot, attention over everything at once."""
    return ObjectiveConfig(learnable_query=False, identity_probability=0.0, split_attention=False)


def ablation_baseline() -> TrainConfig:
    """Table 2, `Baseline`: memory drawn from the candidates."""
    return _ablation("ablation_baseline", baseline())


def ablation_query() -> TrainConfig:
    """Table 2, `+ learnable query`."""
    return _ablation("ablation_query", replace(baseline(), learnable_query=True))


def ablation_recon() -> TrainConfig:
    """Table 2, `+ recon. task`: as above, and the subject is reconstructed from memory."""
    return _ablation("ablation_recon", replace(baseline(), learnable_query=True, identity_probability=0.8))


def ablation_disentangled() -> TrainConfig:
    """Table 2, `+ disentangled memory`: as above with split attention, which is all of Memento."""
    return _ablation("ablation_disentangled", ObjectiveConfig())


def _ablation(name: str, objective: ObjectiveConfig) -> TrainConfig:
    return replace(low_noise_480p(), name=name, objective=objective, output=f"out/train/{name}")


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    made.__name__: made
    for made in (
        debug, low_noise_480p, high_noise_480p, storymem_480p,
        ablation_baseline, ablation_query, ablation_recon, ablation_disentangled,
    )
}  # fmt: skip
"""By name, as the command line knows them."""


def smaller(config: TrainConfig) -> TrainConfig:
    """The same objective at debug size: what an ablation looks like on a CPU."""
    tiny = debug()
    kept: dict[str, Any] = {name: getattr(config, name) for name in ("name", "expert", "objective", "output")}
    compat = replace(config.compat, query_gradient=tiny.compat.query_gradient)
    return replace(tiny, compat=compat, **kept)


def both_experts(recipe: str) -> tuple[Expert, ...]:
    """The experts that a recipe trains one after the other; full-size ones are jobs of their own."""
    return ("high", "low") if recipe == "debug" else ()
