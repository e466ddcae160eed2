"""What goes with the experts: video codec, text encoder, and what tells how alike pictures are.

Codec and text encoder follow from the weights: those trained on Wan's latents and umT5's rows make noise of
any others, so a wrong mix is refused.
"""

from __future__ import annotations

from pathlib import Path

import torch

from memento_model.checkpoints import released
from memento_model.checkpoints.choice import AUTO, NONE, ModelChoice, Sources, locate
from memento_model.codecs.codec import Codec, WanCodec
from memento_model.codecs.dct import DctCodec
from memento_model.codecs.hashed import HashedText
from memento_model.codecs.text import UMT5, TextEncoder
from memento_model.config import ModelConfig
from memento_model.errors import CheckpointError
from memento_model.story.experts import VisitingText
from memento_model.story.image_embed import ClipEmbedder, ThumbnailEmbedder
from memento_model.story.storymem import ImageEmbedder

TILED_BELOW = 24 << 30
"""On a GPU with less memory, the Wan codec works in tiles."""
WAN_FILES = ("Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors", "vae")
TEXT_FILES = ("models_t5_umt5-xxl-enc-bf16.pth", "models_t5_umt5-xxl-enc-bf16.safetensors", "text_encoder")


def _needs(sources: Sources, config: ModelConfig, what: str, full: str, small: str) -> tuple[str, bool]:
    """Which codec or text encoder weights were made for, and whether that is certain."""
    told = sources.told.get(what)
    if told in (full, small):
        return told, True
    if sources.foreign:
        return full, True
    return (full if config.text_dim == ModelConfig().text_dim else small), False


def load_codec(choice: ModelChoice, sources: Sources, config: ModelConfig, device: torch.device) -> Codec:
    """Wan's autoencoder, or the cosine codec.

    Raises:
        CheckpointError: not the one the weights were trained with.
        WeightsMissing: not here, with the command that gets it.
    """
    needed, certain = _needs(sources, config, "codec", "wan", "dct")
    asked = needed if choice.codec == AUTO else "dct" if choice.codec == "dct" else "wan"
    if asked != needed and certain:
        raise CheckpointError(
            f"{sources.shown} was trained on latents of the {needed} codec and would make noise of the "
            f"{asked} codec's; leave --codec out"
        )
    if asked == "dct":
        return DctCodec(device)
    place = _place(choice.codec, ("wan",), sources, "codec_path", WAN_FILES)
    if place is None:
        raise released.WeightsMissing(
            "Wan's video codec (Wan2.1_VAE.pth, or a folder vae/) is not beside the model; name it with "
            f"--codec PATH, or get it with: {released.command('wan22_i2v_a14b')}"
        )
    tiled = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < TILED_BELOW
    return WanCodec.load(place, device=device, tiled=tiled)


def load_text(
    choice: ModelChoice, sources: Sources, config: ModelConfig, device: torch.device
) -> TextEncoder:
    """umT5, or the hashed encoder.

    Raises:
        CheckpointError: not the one the weights were trained with.
        WeightsMissing: not here, with the command that gets it.
    """
    needed, certain = _needs(sources, config, "text", "umt5", "hashed")
    asked = needed if choice.text == AUTO else "hashed" if choice.text == "hashed" else "umt5"
    if asked != needed and certain:
        raise CheckpointError(
            f"{sources.shown} was trained on rows of the {needed} text encoder and would make nonsense of "
            f"the {asked} one's; leave --text out"
        )
    if asked == "hashed":
        return HashedText(config.text_dim, config.text_len, device)
    place = _place(choice.text, ("umt5",), sources, "text_path", TEXT_FILES)
    if place is None:
        raise released.WeightsMissing(
            "the umT5 text encoder (models_t5_umt5-xxl-enc-bf16.pth, or a folder text_encoder/) is not "
            "beside the model; name it with --text PATH, or get it with: "
            f"{released.command('wan22_i2v_a14b')}"
        )
    text = UMT5.load(place, text_len=config.text_len)
    if text.text_dim != config.text_dim:
        raise CheckpointError(
            f"{place}: rows of {text.text_dim} numbers, {sources.shown} reads {config.text_dim}; this text "
            "encoder belongs to another model"
        )
    return VisitingText(text, device) if device.type != "cpu" else text


def _place(
    asked: str, plain: tuple[str, ...], sources: Sources, told: str, files: tuple[str, ...]
) -> Path | None:
    """Where codec or text encoder lies: as named, as told by training, beside the model, in a cache."""
    if asked not in (AUTO, *plain):
        return locate(asked)
    if sources.told.get(told):
        return locate(str(sources.told[told]))
    folders = [one.path for one in sources.base.values()]
    folders += [found for name in ("wan22_i2v_a14b", "wan22_t2v_a14b") if (found := released.find(name))]
    return next((folder for folder in folders if any((folder / name).exists() for name in files)), None)


def load_embedder(choice: ModelChoice, device: torch.device) -> ImageEmbedder:
    """CLIP as named, or as found; thumbnails where there is none."""
    if choice.clip == NONE:
        return ThumbnailEmbedder()
    folder = locate(choice.clip) if choice.clip else released.find("clip_vit_b32")
    if folder is None:
        return ThumbnailEmbedder()
    try:
        return ClipEmbedder(folder, device)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: no CLIP model ({str(error).splitlines()[0]})") from error
