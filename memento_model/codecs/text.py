"""Prompts to rows of numbers: what every text encoder of the model offers, and umT5.

Axis letters: t token or row, d width.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from curation.cpu_linear import speed_up
from memento_model.checkpoints.names import t5_from_native
from memento_model.checkpoints.tensor_files import TensorSet, fingerprint, open_tensors
from memento_model.checkpoints.tensor_formats import read_json
from memento_model.errors import CheckpointError

NATIVE_WEIGHTS = "models_t5_umt5-xxl-enc-bf16"
NATIVE_TOKENIZER = "google/umt5-xxl"


class TextEncoder(Protocol):
    """Encodes prompts. The transformer pads the rows with zeros to `text_len`, unmasked.

    Implementations derive from this class. Rows are fp32, on the encoder's device.

    Attributes:
        name: of the method, e.g. for records and cache keys.
        revision: changes whenever the rows change: a fingerprint of weights or tables.
        text_dim: width of a row.
        text_len: most rows of a prompt.
    """

    name: str
    revision: str
    text_dim: int
    text_len: int

    def encode(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """One tensor_td per prompt, without padding; 1 to `text_len` rows, also for an empty prompt."""
        ...

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move to a device, in place; returns itself."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the encoder works."""
        ...


def clean(prompt: str) -> str:
    """Wan's cleaning: mend broken Unicode, resolve HTML entities twice, one blank for any white space."""
    from ftfy import fix_text

    return re.sub(r"\s+", " ", html.unescape(html.unescape(fix_text(prompt)))).strip()


class UMT5(TextEncoder):
    """Wan's umT5-XXL encoder.

    Args:
        model: transformers' `UMT5EncoderModel`, with weights.
        tokenizer: its tokenizer.
        revision: fingerprint of the weights.
        text_len: most tokens of a prompt, the end mark included; more are cut off.
    """

    name = "umt5"

    def __init__(self, model: Any, tokenizer: Any, *, revision: str, text_len: int = 512) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.revision = revision
        self.text_dim = model.config.d_model
        self.text_len = text_len

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        tokenizer: Path | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        text_len: int = 512,
    ) -> Self:
        """Read weights and tokenizer from wherever they come from.

        Args:
            path: a native Wan folder or its `models_t5_umt5-xxl-enc-bf16.pth` (or .safetensors), a diffusers
                model folder, or a transformers folder.
            tokenizer: folder of the tokenizer, if it is not where these forms keep it.
            device: where to work.
            dtype: of the weights; bf16 as released.
            text_len: most tokens of a prompt.

        Raises:
            CheckpointError: not there, or not these weights.
        """
        tensors, settings, tokenizer_folder = _find(Path(path), tokenizer)
        model = _built(tensors, settings, dtype)
        revision = _revision(tensors, dtype)
        made = cls(model, _tokenizer(tokenizer_folder), revision=revision, text_len=text_len)
        return made.to(device)

    @staticmethod
    def revision_of(path: Path, dtype: torch.dtype = torch.bfloat16) -> str:
        """The revision that `load` would give these weights, without building the encoder.

        Raises:
            CheckpointError: not there, or not these weights.
        """
        return _revision(_find(Path(path), None)[0], dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._model.device

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Rows of each prompt; see `TextEncoder.encode`. One prompt at a time: padding costs more."""
        rows = []
        for prompt in prompts:
            ids_bt = self._tokenizer(
                clean(prompt), truncation=True, max_length=self.text_len, return_tensors="pt"
            ).input_ids.to(self.device)
            rows.append(self.encode_ids(ids_bt, torch.ones_like(ids_bt))[0].float())
        return rows

    @torch.no_grad()
    def encode_ids(self, ids_bt: torch.Tensor, mask_bt: torch.Tensor) -> torch.Tensor:
        """Encoder output [b, t, d]; rows with mask 0 mean nothing."""
        return self._model(input_ids=ids_bt, attention_mask=mask_bt).last_hidden_state


def _revision(tensors: TensorSet, dtype: torch.dtype) -> str:
    return fingerprint(tensors.files) + f"-{str(dtype).removeprefix('torch.')}"


def _find(path: Path, tokenizer: Path | None) -> tuple[TensorSet, dict[str, Any], Path]:
    """Tensors by transformers' names, settings of the model, folder of the tokenizer."""
    native = [path / f"{NATIVE_WEIGHTS}{ending}" for ending in (".pth", ".safetensors")]
    place = next((p for p in [*native, path / "text_encoder"] if p.exists()), path)
    tensors = open_tensors(place)
    if "token_embedding.weight" in tensors:
        around = place if place.is_dir() else place.parent
        return (
            tensors.renamed(t5_from_native),
            _settings_of_native(tensors),
            tokenizer or around / NATIVE_TOKENIZER,
        )
    if "shared.weight" not in tensors:
        raise CheckpointError(f"{place}: not the weights of a umT5 encoder")
    folder = place if place.is_dir() else place.parent
    settings = read_json(folder / "config.json")
    beside = folder.parent / "tokenizer"
    kept = tensors.chosen(
        name for name in tensors if not name.startswith(("decoder.", "lm_head")) and name != _TIED
    )
    return kept, settings, tokenizer or (beside if beside.is_dir() else folder)


_TIED = "encoder.embed_tokens.weight"


def _settings_of_native(tensors: TensorSet) -> dict[str, Any]:
    """Sizes of the native encoder, which has no config file, from its shapes."""
    try:
        vocabulary, width = tensors["token_embedding.weight"].shape
        buckets, heads = tensors["blocks.0.pos_embedding.embedding.weight"].shape
        inner = tensors["blocks.0.attn.q.weight"].shape[0]
        hidden = tensors["blocks.0.ffn.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{tensors.source}: not the weights of a umT5 encoder ({error})") from error
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_heads": heads,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        "relative_attention_num_buckets": buckets,
    }


def _built(tensors: TensorSet, settings: dict[str, Any], dtype: torch.dtype) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**settings))
    # Embedding and encoder share one tensor, which files hold once.
    expected = {name: tuple(v.shape) for name, v in model.state_dict().items() if name != _TIED}
    tensors.check(expected)
    state = {name: tensors.read(name).to(dtype) for name in tensors}
    model.load_state_dict(state | {_TIED: state["shared.weight"]}, strict=True, assign=True)
    model.tie_weights()
    return speed_up(model)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        raise CheckpointError(
            f"{folder}: no tokenizer of umT5 (tokenizer.json or spiece.model); fetch it or name its folder"
        )
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
