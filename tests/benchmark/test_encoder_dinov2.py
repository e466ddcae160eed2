from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

import torch
import torch.nn.functional as F

from benchmark.encoders import dinov2, tensors
from curation.weights import WeightsDamaged
from tests.benchmark.small_encoders import (
    SMALL_DINOV2,
    dinov2_in_transformers,
    dinov2_state,
    write,
    zeros,
)

CLOSE = 1e-4
SMALL = dinov2.Shape(size=56, width=48, layers=2, heads=4)


def ours(shape, seed=3):
    return tensors.made_up(lambda: dinov2.Dinov2(shape), seed)


def theirs(shape, module):
    pytest.importorskip("transformers")
    from benchmark.encoders.certificate_file import transformers_dinov2

    model = transformers_dinov2(shape, tensors.part_of(module.state_dict(), "vit."))
    return lambda images: model(pixel_values=images).pooler_output


def test_features_are_those_of_transformers():
    module, images = ours(SMALL), torch.randn(5, 3, 56, 56)
    assert torch.allclose(module(images), theirs(SMALL, module)(images), rtol=0, atol=CLOSE)


@pytest.mark.slow
def test_features_are_those_of_transformers_at_real_size():
    shape = dinov2.SHAPES["dinov2-b14"]
    module, images = dinov2.random_module("dinov2-b14", 3), torch.randn(1, 3, 518, 518)
    with torch.inference_mode():
        made, reference = module(images), theirs(shape, module)(images)
    assert torch.allclose(F.normalize(made, dim=1), F.normalize(reference, dim=1), rtol=0, atol=CLOSE)


def cubic(distance):
    """The weight of a neighbour at a distance, a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def stretch_axis(table, count):
    """Bicubic along the first axis as the hub's code does it: the scale has the offset, no antialiasing."""
    side = len(table)
    rows = []
    for i in range(count):
        place = (i + 0.5) * side / (count + 0.1) - 0.5
        near = int(np.floor(place))
        rows.append(
            sum(cubic(place - j) * table[min(max(j, 0), side - 1)] for j in range(near - 1, near + 3))
        )
    return np.stack(rows)


@pytest.mark.parametrize("grid", [(16, 16), (16, 28), (37, 20)])
def test_the_table_of_positions_is_stretched_as_on_the_hub(grid):
    table = torch.randn(1, 37 * 37 + 1, 5)
    made = dinov2.positions(table, grid)
    square = table[0, 1:].double().numpy().reshape(37, 37, 5)
    tall = stretch_axis(square, grid[0])
    both = stretch_axis(tall.transpose(1, 0, 2), grid[1]).transpose(1, 0, 2)
    assert made.shape == (1, grid[0] * grid[1] + 1, 5)
    assert torch.equal(made[:, 0], table[:, 0])
    assert np.abs(made[0, 1:].numpy() - both.reshape(-1, 5)).max() < 1e-5


def test_the_table_is_untouched_at_its_own_size():
    table = torch.randn(1, 26, 4)
    assert dinov2.positions(table, (5, 5)) is table


def test_sides_of_a_wide_picture_count():
    module = ours(SMALL)
    images = torch.randn(1, 3, 56, 98)
    other = images.clone()
    other[..., 84:] = 0
    assert (module(images) - module(other)).abs().max() > 1e-3


def test_both_published_layouts_give_the_same_encoder(small):
    state, images = dinov2_state(), torch.randn(2, 3, 224, 224)
    path = small / "dinov2_vitb14_pretrain.pth"
    torch.save(state, path)
    first = dinov2.from_state("dinov2-b14", tensors.read_state(path, ""), "pth")(images)
    whole = write(dinov2_in_transformers(state), small / "model.safetensors")
    second = dinov2.from_state("dinov2-b14", tensors.read_state(whole, ""), "safetensors")(images)
    prefixed = {f"dinov2.{name}": value for name, value in dinov2_in_transformers(state).items()}
    assert torch.equal(first, second)
    assert torch.equal(dinov2.from_state("dinov2-b14", prefixed, "prefixed")(images), first)


def test_files_that_transformers_itself_writes(small, tmp_path):
    transformers = pytest.importorskip("transformers")
    settings = transformers.Dinov2Config(
        hidden_size=SMALL_DINOV2.width,
        num_hidden_layers=SMALL_DINOV2.layers,
        num_attention_heads=SMALL_DINOV2.heads,
        image_size=SMALL_DINOV2.size,
        patch_size=SMALL_DINOV2.patch,
    )
    model = transformers.Dinov2Model(settings).eval()
    model.save_pretrained(tmp_path / "saved")
    images = torch.randn(2, 3, 280, 280)
    state = tensors.read_state(tmp_path / "saved" / "model.safetensors", "")
    made = dinov2.from_state("dinov2-b14", state, "saved")(images)
    with torch.no_grad():
        reference = model(pixel_values=images).pooler_output
    assert torch.allclose(made, reference, rtol=0, atol=CLOSE)


def test_the_published_layout_at_real_size():
    with torch.device("meta"):
        made = dinov2.Dinov2(dinov2.SHAPES["dinov2-b14"])
    state = tensors.part_of(zeros(made), "vit.") | {"mask_token": torch.zeros(1, 768)}
    assert len(state) == 175  # of dinov2_vitb14_pretrain.pth
    assert state["pos_embed"].shape == (1, 1370, 768)
    assert sum(value.numel() for value in state.values()) == 86_580_480
    dinov2.from_state("dinov2-b14", state, "file")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(register_tokens=torch.zeros(1, 4, 48)), "DINOv2 with registers"),
        (lambda s: s.pop("norm.bias"), r"lacks vit\.norm\.bias"),
        (lambda s: s.update({"head.weight": torch.zeros(2, 2)}), r"has vit\.head\.weight"),
    ],
)
def test_wrong_files_end_in_one_line(small, change, says):
    state = dict(dinov2_state())
    change(state)
    with pytest.raises(WeightsDamaged, match=says):
        dinov2.from_state("dinov2-b14", state, "file")


def test_a_lost_part_of_the_attention_is_named(small):
    state = dinov2_in_transformers(dinov2_state())
    del state["encoder.layer.0.attention.attention.key.bias"]
    with pytest.raises(WeightsDamaged, match="lacks a part of its attention"):
        dinov2.from_state("dinov2-b14", state, "file")
