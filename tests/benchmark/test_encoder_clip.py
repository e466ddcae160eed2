from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

import torch
import torch.nn.functional as F

from benchmark.encoders import certificate, clip, tensors
from curation.weights import WeightsDamaged
from tests.benchmark.small_encoders import SMALL_CLIP, clip_in_transformers, clip_state, write, zeros

CLOSE = 1e-4


def ours(shape, seed=3):
    return tensors.made_up(lambda: clip.Clip(shape), seed)


def theirs(shape, state, activation=None):
    pytest.importorskip("transformers")
    from benchmark.encoders.certificate_file import transformers_clip

    model = transformers_clip(shape, tensors.part_of(state, "visual."))
    for layer in model.vision_model.encoder.layers:
        layer.mlp.activation_fn = activation or layer.mlp.activation_fn
    return lambda images: model(pixel_values=images).image_embeds


def test_features_are_those_of_transformers():
    module = ours(certificate.small_clip())
    images = torch.randn(5, 3, 64, 64)
    reference = theirs(certificate.small_clip(), module.state_dict())(images)
    assert torch.allclose(module(images), reference, rtol=0, atol=CLOSE)


def test_gelu_would_be_seen():
    module = ours(certificate.small_clip())
    images = torch.randn(5, 3, 64, 64)
    reference = theirs(certificate.small_clip(), module.state_dict(), torch.nn.GELU())(images)
    assert (module(images) - reference).abs().max() > 10 * CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip-b32", "clip-l14"])
def test_features_are_those_of_transformers_at_real_size(name):
    module = clip.random_module(name, 3)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        made = F.normalize(module(images), dim=1)
        reference = F.normalize(theirs(clip.SHAPES[name], module.state_dict())(images), dim=1)
    assert made.shape == (2, clip.SHAPES[name].features)
    assert torch.allclose(made, reference, rtol=0, atol=CLOSE)


def test_wide_pictures_are_the_mean_of_the_squares_that_cover_them():
    module = ours(certificate.small_clip())
    images = torch.randn(3, 3, 64, 112)
    squares = [F.normalize(module(images[..., left : left + 64]), dim=1) for left in (0, 48)]
    assert torch.allclose(module(images), (squares[0] + squares[1]) / 2, rtol=0, atol=1e-6)
    high = module(images.transpose(2, 3))
    squares = [F.normalize(module(images[..., left : left + 64].transpose(2, 3)), dim=1) for left in (0, 48)]
    assert torch.allclose(high, (squares[0] + squares[1]) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "places"),
    [
        ((224, 392), [(0, 0), (0, 168)]),
        ((392, 224), [(0, 0), (168, 0)]),
        ((224, 224), [(0, 0)]),
        ((224, 532), [(0, 0), (0, 154), (0, 308)]),
    ],
)
def test_squares_cover_a_picture(small, size, places):
    assert ours(SMALL_CLIP).tiles(*size) == places


def test_all_published_layouts_give_the_same_encoder(small):
    state = clip_state()
    images = torch.randn(2, 3, 224, 224)
    reference = tensors.assembled(lambda: clip.Clip(SMALL_CLIP), _visual(state), "made")(images)
    for name, layout in {
        "open_clip_model.safetensors": state,
        "model.safetensors": clip_in_transformers(state),
    }.items():
        read = tensors.read_state(write(layout, small / name), "")
        assert torch.equal(clip.from_state("clip-b32", read, name)(images), reference), name
    path = small / "checkpoint.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    assert torch.equal(clip.from_state("clip-b32", tensors.read_state(path, ""), "pt")(images), reference)


def _visual(state):
    return {name: value for name, value in state.items() if name.startswith("visual.")}


class Archive(torch.nn.Module):
    """What an archive of a program holds, in OpenAI's layout."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            parent = self
            *parts, last = name.split(".")
            for part in parts:
                if not hasattr(parent, part):
                    parent.add_module(part, torch.nn.Module())
                parent = getattr(parent, part)
            parent.register_buffer(last, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_openais_archives_are_opened_and_no_others(small, monkeypatch):
    state = {name: value.half() for name, value in _visual(clip_state()).items()}
    path = small / "ViT-B-32.pt"
    torch.jit.save(torch.jit.script(Archive(state)), path)
    with pytest.raises(WeightsDamaged, match=r"a TorchScript archive, which is a program, and not OpenAI's"):
        tensors.read_state(path, "0" * 64)
    monkeypatch.setattr(tensors, "TORCHSCRIPT", frozenset({"1" * 64}))
    made = clip.from_state("clip-b32", tensors.read_state(path, "1" * 64), "pt")
    assert made(torch.randn(1, 3, 224, 224)).dtype == torch.float32


@pytest.mark.parametrize("name", ["clip-b32", "clip-l14"])
def test_the_published_layout_at_real_size(name):
    with torch.device("meta"):
        made = clip.Clip(clip.SHAPES[name])
    state = zeros(made)
    assert len(state) == {"clip-b32": 152, "clip-l14": 296}[name]
    assert state["visual.proj"].shape == ((768, 512) if name == "clip-b32" else (1024, 768))
    clip.from_state(name, state, "file")
    if name == "clip-b32":
        whole = clip_in_transformers(state)
        assert whole["vision_model.embeddings.patch_embedding.weight"].shape == (768, 3, 32, 32)
        assert whole["vision_model.embeddings.position_embedding.weight"].shape == (50, 768)
        clip.from_state(name, whole, "file")


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("visual_projection.weight", "lacks visual_projection.weight"),
        ("vision_model.encoder.layers.0.self_attn.k_proj.bias", "lacks a part of its attention"),
        ("vision_model.post_layernorm.bias", r"lacks visual\.ln_post\.bias: another model"),
        ("vision_model.embeddings.class_embedding", r"neither visual\.\* .* nor vision_model\.\*"),
    ],
)
def test_incomplete_files_end_in_one_line(small, lost, says):
    state = clip_in_transformers(clip_state())
    del state[lost]
    with pytest.raises(WeightsDamaged, match=says):
        clip.from_state("clip-b32", state, "file")


def test_the_other_size_is_refused():
    with torch.device("meta"):
        state = zeros(clip.Clip(clip.SHAPES["clip-b32"]))
    with pytest.raises(WeightsDamaged, match="another model"):
        clip.from_state("clip-l14", state, "file")


def test_tiles_are_whole_numbers():
    assert all(isinstance(n, int) for place in ours(SMALL_CLIP).tiles(224, 392) for n in place)
    assert np.prod(ours(SMALL_CLIP)(torch.zeros(1, 3, 224, 392)).shape) == SMALL_CLIP.features
