"""Parameter names: ours (diffusers' Wan modules), the native ones of Wan2.2, and how releases spell adapters.

Pure functions of names; anything below a linear layer (`weight`, `lora_A.default.weight`) is carried along.
No other file knows a foreign name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memento_model.config import Expert

_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_IN_BLOCK = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",  # the affine norm before cross-attention; the other two have no parameters
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
} | {
    f"{native}_attn.{old}": f"{ours}.{new}"
    for native, ours in (("self", "attn1"), ("cross", "attn2"))
    for old, new in {
        "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k",
    }.items()
}  # fmt: skip
BUNDLED = "model.diffusion_model."
"""What stands before every name in files that bundle several models."""
_BLOCK = re.compile(r"(blocks\.\d+\.)(.+)")


def from_native(name: str) -> str:
    """Our name of a native one, e.g. `blocks.3.self_attn.q.weight` -> `blocks.3.attn1.to_q.weight`.

    Raises:
        KeyError: no native name of the transformer.
    """
    return _renamed(name, _OUTSIDE, _IN_BLOCK)


def to_native(name: str) -> str:
    """The native name of one of ours; the inverse of `from_native`. PEFT's `base_layer` is left out.

    Raises:
        KeyError: no name of our transformer.
    """
    name = name.replace(".base_layer.", ".")
    return _renamed(
        name, {ours: native for native, ours in _OUTSIDE.items()}, {o: n for n, o in _IN_BLOCK.items()}
    )


def _renamed(name: str, outside: dict[str, str], in_block: dict[str, str]) -> str:
    match = _BLOCK.fullmatch(name)
    prefix, rest, table = (match[1], match[2], in_block) if match else ("", name, outside)
    for known, new in table.items():
        if rest == known or rest.startswith(known + "."):
            return prefix + new + rest[len(known) :]
    raise KeyError(f"unknown parameter name: {name}")


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How a file of adapters and queries spells its names.

    Ours are `blocks.0.self_attn.q.lora_A.default.weight` and `keyframe_query.queries`. The official trainer
    writes `low_noise_model.base_model.model.` in front; its loader wants `base_model.model.` and takes the
    rest with or without; StoryMem leaves `.default` out.

    Attributes:
        expert: the expert's prefix; None where there is none.
        container: of the wrapper: `base_model.model.`, `diffusion_model.` or nothing.
        adapter: whether PEFT's `.default` stands before `.weight`.
    """

    expert: Expert | None = None
    container: str = ""
    adapter: bool = True


OURS = Spelling()
OFFICIAL = {
    "low": Spelling(expert="low", container="base_model.model."),
    "high": Spelling(expert="high", container="base_model.model."),
}
"""What the official trainer saves."""
STORYMEM = Spelling(container="base_model.model.", adapter=False)
_SPELT = re.compile(
    r"(?:(?P<expert>low|high)_noise_model\.)?(?P<container>base_model\.model\.|diffusion_model\.)?(?P<name>.+)"
)
_LORA = re.compile(r"(?P<layer>blocks\.\d+\..+)\.lora_(?P<side>[AB])(?P<adapter>\.default)?\.weight")


def from_spelling(name: str) -> tuple[str, Spelling]:
    """Our name of an adapter's or a query's tensor, and how it was spelt.

    Names of queries never hold `.default`; their spelling says True there.

    Raises:
        KeyError: neither a LoRA tensor of a block nor one of `keyframe_query`.
    """
    spelt = _SPELT.fullmatch(name)
    if spelt is None:
        raise KeyError(f"unknown parameter name: {name}")
    expert: Expert | None = "low" if spelt["expert"] == "low" else "high" if spelt["expert"] else None
    container, rest = spelt["container"] or "", spelt["name"]
    if rest.startswith("keyframe_query."):
        return rest, Spelling(expert=expert, container=container)
    lora = _LORA.fullmatch(rest)
    if lora is None:
        raise KeyError(f"neither a LoRA weight of a block nor part of keyframe_query: {name}")
    from_native(f"{lora['layer']}.weight")  # refuses layers that are none
    ours = f"{lora['layer']}.lora_{lora['side']}.default.weight"
    return ours, Spelling(expert=expert, container=container, adapter=lora["adapter"] is not None)


def to_spelling(name: str, spelling: Spelling) -> str:
    """One of our names as a release spells it; the inverse of `from_spelling`."""
    if not spelling.adapter:
        name = name.replace(".default.weight", ".weight")
    prefix = f"{spelling.expert}_noise_model." if spelling.expert else ""
    return prefix + spelling.container + name


_VAE_RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
_VAE_PARTS = _VAE_RESIDUAL | {
    "shortcut": "conv_shortcut",
    "resample.1": "resample.1",
    "time_conv": "time_conv",
}
_VAE_OUTSIDE = {
    "conv1": "conv_in",
    "head.0": "norm_out",
    "head.2": "conv_out",
    "middle.1": "mid_block.attentions.0",
}
_VAE_STACK = re.compile(r"(?P<stack>middle|downsamples|upsamples)\.(?P<index>\d+)\.(?P<part>.+)")


def vae_from_native(name: str) -> str:
    """Diffusers' name of a native one of Wan2.1's video autoencoder.

    Raises:
        KeyError: no name of it.
    """
    if name.startswith(("conv1.", "conv2.")):
        return ("quant_conv." if name[4] == "1" else "post_quant_conv.") + name[6:]
    side, _, rest = name.partition(".")
    if side in ("encoder", "decoder"):
        for known, new in _VAE_OUTSIDE.items():
            if rest.startswith(known + "."):
                return f"{side}.{new}{rest[len(known) :]}"
        match = _VAE_STACK.fullmatch(rest)
        if match:
            part = next((p for p in _VAE_PARTS if match["part"].startswith(p + ".")), None)
            if part:
                place = _vae_place(match["stack"], int(match["index"]))
                return f"{side}.{place}.{_VAE_PARTS[part]}{match['part'][len(part) :]}"
    raise KeyError(f"unknown parameter name: {name}")


def _vae_place(stack: str, index: int) -> str:
    """Module of a native index; a stage of the decoder is three residual blocks and an upsampler."""
    if stack == "middle":
        return f"mid_block.resnets.{index // 2}"
    if stack == "downsamples":
        return f"down_blocks.{index}"
    stage, within = divmod(index, 4)
    return f"up_blocks.{stage}.upsamplers.0" if within == 3 else f"up_blocks.{stage}.resnets.{within}"


_T5_OUTSIDE = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
_T5_IN_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


def t5_from_native(name: str) -> str:
    """Transformers' name of a native one of the umT5 encoder.

    Raises:
        KeyError: no name of it.
    """
    if name in _T5_OUTSIDE:
        return _T5_OUTSIDE[name]
    match = _BLOCK.fullmatch(name)
    part = match[2].removesuffix(".weight") if match else ""
    if match and part in _T5_IN_BLOCK:
        return f"encoder.{match[1].replace('blocks', 'block')}{_T5_IN_BLOCK[part]}.weight"
    raise KeyError(f"unknown parameter name: {name}")
