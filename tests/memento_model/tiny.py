"""A model small enough for tests: the true architecture, the weightless codec and text encoder."""

from __future__ import annotations

import torch

from curation.stories.script import Scene, ShotPrompt, StoryScript
from memento_model.codecs.dct import DctCodec
from memento_model.codecs.hashed import HashedText
from memento_model.config import Compat, FrameGrid, ModelConfig
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.transformer import MementoTransformer, initialise
from memento_model.story.generate import Models, QueryElection
from memento_model.story.memory import EXPERTS, MementoMemory

CONFIG = ModelConfig(
    width=48, num_heads=2, num_layers=2, ffn_width=64, freq_dim=16, text_dim=32, text_len=24, lora_rank=4,
    lora_alpha=4,
)  # fmt: skip
GRID = FrameGrid(num_frames=9, height=32, width=48)


def transformer(seed, config=CONFIG):
    model = MementoTransformer.from_config(config)
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():  # the published start has a silent output layer
        model.proj_out.weight.normal_(0, 0.05, generator=generator)
    return model.eval()


def query(seed, config=CONFIG):
    torch.manual_seed(seed)
    return KeyframeQuery(config).eval()


def models(compat=None):
    experts = {expert: transformer(seed) for seed, expert in enumerate(EXPERTS)}
    return Models(
        experts=lambda expert: experts[expert],
        first_shot=None,
        codec=DctCodec(),
        text=HashedText(CONFIG.text_dim, CONFIG.text_len),
        config=CONFIG,
        compat=compat or Compat(),
        revision="tiny",
    )


def memento_memory(made, compat=None):
    elect = {
        expert: QueryElection(query(seed), made.experts(expert).embed_text)
        for seed, expert in enumerate(EXPERTS)
    }
    return MementoMemory(elect, CONFIG.bank_size, compat or Compat())


def story(num_shots, cuts=None, memento=True):
    cuts = cuts or [i % 3 != 1 for i in range(num_shots)]
    shots = tuple(
        ShotPrompt(
            scene_num=1,
            shot_num=i + 1,
            cut=cuts[i],
            prompt=f"global caption: [Person A]: a diver; shot caption: [Person A] swims, {i}.",
        )
        for i in range(num_shots)
    )
    return StoryScript(
        story_name="A dive",
        scenes=(Scene(scene_num=1, shots=shots),),
        story_overview="Somebody dives.",
        reconstruct_target="[Person A] a diver in a red suit" if memento else None,
        key="dive",
    )
