"""Names of parameters: every form maps to ours one to one and back."""

from __future__ import annotations

import itertools
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.checkpoints import names
from memento_model.checkpoints.foreign_config import lora_shapes, query_shapes
from memento_model.checkpoints.forms import base_shapes
from memento_model.checkpoints.tensor_files import open_tensors
from memento_model.config import ModelConfig
from tests.memento_model.weights import TINY
from tests.support import GOLDEN, SHARED

FULL = ModelConfig()
SPELLINGS = [
    names.Spelling(expert=expert, container=container, adapter=adapter)
    for expert, container, adapter in itertools.product(
        ("low", "high", None), ("base_model.model.", "diffusion_model.", ""), (True, False)
    )
]


def test_full_size_census():
    base = base_shapes(FULL)
    assert len(base) == 1095
    assert sum(torch.Size(shape).numel() for shape in base.values()) == 14_288_901_184
    lora, queries = lora_shapes(FULL), query_shapes(FULL)
    assert (len(lora), len(queries)) == (800, 24)
    assert sum(torch.Size(shape).numel() for shape in lora.values()) == 613_416_960
    assert sum(torch.Size(shape).numel() for shape in queries.values()) == 210_170_880


def test_trainable_names_and_shapes_are_the_official_ones():
    listed = SHARED / "specs" / "memento_trainable_tensors.json"
    if not listed.exists():
        pytest.skip("list of the official tensors not present")
    ours = lora_shapes(FULL) | query_shapes(FULL)
    spelt = {names.to_spelling(name, names.OFFICIAL["low"]): list(shape) for name, shape in ours.items()}
    assert spelt == json.loads(listed.read_text())


def test_native_names_and_back():
    ours = list(base_shapes(FULL))
    native = [names.to_native(name) for name in ours]
    assert len(set(native)) == 1095
    assert [names.from_native(name) for name in native] == ours
    assert "blocks.39.norm3.weight" in native
    assert names.from_native("blocks.39.norm3.weight") == "blocks.39.norm2.weight"
    assert names.from_native("head.modulation") == "scale_shift_table"


@pytest.mark.parametrize(
    "name", ["img_emb.proj.0.weight", "blocks.0.attn9.q.weight", "blocks.x.norm3.weight", ""]
)
def test_unknown_native_names_are_refused(name):
    with pytest.raises(KeyError, match="unknown parameter"):
        names.from_native(name)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_every_spelling_and_back(spelling):
    ours = [*lora_shapes(TINY), *query_shapes(TINY)]
    spelt = [names.to_spelling(name, spelling) for name in ours]
    assert len(set(spelt)) == len(ours)
    for name, written in zip(ours, spelt, strict=True):
        back, seen = names.from_spelling(written)
        assert back == name
        assert names.to_spelling(back, seen) == written
        assert (seen.expert, seen.container) == (spelling.expert, spelling.container)
    assert names.to_spelling("blocks.0.ffn.2.lora_A.default.weight", names.STORYMEM) == (
        "base_model.model.blocks.0.ffn.2.lora_A.weight"
    )


@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.self_attn.q.weight",
        "blocks.0.self_attn.z.lora_A.weight",
        "lora_A.weight",
        "x\n.lora_A.weight",
    ],
)
def test_what_is_no_adapter_is_refused(name):
    with pytest.raises(KeyError):
        names.from_spelling(name)


def test_autoencoder_names_equal_diffusers_own_conversion():
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    native = list(open_tensors(GOLDEN / "model/vae_tiny/vae.safetensors"))
    theirs = {old: new for new, old in convert_wan_vae_to_diffusers({name: name for name in native}).items()}
    assert {name: names.vae_from_native(name) for name in native} == theirs
    assert len(native) == 194
    for odd in ("decoder.upsamples.0.gate", "encoder.tail.weight", "discriminator.0"):
        with pytest.raises(KeyError, match="unknown parameter"):
            names.vae_from_native(odd)


def test_t5_names_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    native = list(open_tensors(GOLDEN / "model/t5_tiny/t5.safetensors"))
    config = transformers.UMT5Config(vocab_size=96, d_model=48, d_kv=16, d_ff=72, num_heads=3, num_layers=2)
    with torch.device("meta"):
        theirs = set(transformers.UMT5EncoderModel(config).state_dict())
    assert {names.t5_from_native(name) for name in native} == theirs - {"encoder.embed_tokens.weight"}
    with pytest.raises(KeyError, match="unknown parameter"):
        names.t5_from_native("blocks.0.attn.q.bias")
