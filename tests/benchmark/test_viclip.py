from __future__ import annotations

import json
from functools import cache, partial
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("torch")
if not find_spec("open_clip"):  # whose import takes seconds
    pytest.skip("open_clip is not installed", allow_module_level=True)

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from benchmark.encoders import certificate, tensors, viclip
from benchmark.encoders.pixels import CLIP, IMAGENET, VICLIP
from benchmark.encoders.tokenizer import END, START, token_table, tokenize
from benchmark.encoders.viclip import TextTower, Viclip
from curation.weights import WeightsDamaged
from tests.benchmark.small_encoders import viclip_state, write, zeros
from tests.support import GOLDEN

FOLDER = GOLDEN / "viclip"
OURS = {"demo": "demo-squash-imagenet", "vbench": "vbench-crop-clip", "train_eval_pil": "squash-imagenet"}
RECIPES = ("demo", "vbench", "train_eval_pil", "train_eval_aa", "train_eval_noaa")
ORDERS = ("forward", "reversed", "frame3_x8", "single_frame0")
CLOSE = 1e-5


@cache
def settings():
    return json.loads((FOLDER / "config.json").read_text())


@cache
def expected():
    return load_file(FOLDER / "io.safetensors")


@cache
def frames():
    paths = sorted((FOLDER / "frames").glob("*.png"))
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


@cache
def module():
    state = load_file(FOLDER / "weights.safetensors")
    table = torch.zeros(49408, 40)
    rows = state.pop("text_encoder.token_embedding.rows")
    table[rows] = state.pop("text_encoder.token_embedding.values")
    state["text_encoder.token_embedding.weight"] = table
    return tensors.assembled(lambda: Viclip(certificate.golden_viclip()), state, "golden")


@cache
def pixels(recipe):
    """uint8 [8, 224, 224, 3] exactly as the published code resized them."""
    if recipe == "train_eval_pil":  # ours is within a level of Pillow's
        small = [Image.fromarray(f).resize((224, 224), Image.Resampling.BICUBIC) for f in frames()]
        return np.stack([np.asarray(picture) for picture in small])
    if recipe in OURS:
        return VICLIP[OURS[recipe]].pixels.pictures(frames())
    images = torch.from_numpy(frames()).permute(0, 3, 1, 2).float()
    aa = recipe == "train_eval_aa"
    small = F.interpolate(images, (224, 224), mode="bicubic", antialias=aa, align_corners=False)
    return small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def normalised(recipe):
    mean, std = (torch.tensor(row)[:, None, None] for row in settings()["pixel_stats"][recipe])
    return (torch.from_numpy(pixels(recipe)).permute(0, 3, 1, 2).float() / 255 - mean) / std


def test_tokens_are_those_of_the_published_code():
    table = token_table(settings()["texts"], 32)
    assert np.array_equal(table, expected()["text.tokens"].numpy())


@pytest.mark.parametrize("number", range(16))
def test_tokens_before_the_cut(number):
    tokens = tokenize(settings()["texts"][number])
    assert tokens == settings()["token_ids_before_cut"][number]
    assert len(tokens) + 2 == settings()["token_count_before_cut"][number]


def test_tokens_are_cut_with_the_mark_of_the_end_last():
    (row,) = token_table(["word " * 50], 32)
    assert row[0] == START
    assert row[-1] == END
    assert np.count_nonzero(row == END) == 1


def test_features_of_texts():
    raw = module().text_encoder(expected()["text.tokens"])
    assert torch.allclose(raw, expected()["text.feature_raw"], rtol=0, atol=CLOSE)
    assert torch.allclose(F.normalize(raw, dim=1), expected()["text.feature_unit"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("recipe", RECIPES)
def test_features_of_clips(recipe):
    images = normalised(recipe)
    for order in ORDERS:
        raw = module()(images[settings()["frame_orders"][order]][None])[0]
        assert torch.allclose(raw, expected()[f"video.{recipe}.{order}.raw"], rtol=0, atol=CLOSE), order


def test_similarities():
    texts = F.normalize(module().text_encoder(expected()["text.tokens"]), dim=1)
    rows = []
    for name in settings()["similarity_rows"]:
        recipe, order = name.split(".")
        rows.append(module()(normalised(recipe)[settings()["frame_orders"][order]][None])[0])
    made = F.normalize(torch.stack(rows), dim=1) @ texts.T
    assert torch.allclose(made, expected()["similarity"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize(("recipe", "levels"), [("demo", 0), ("vbench", 0), ("train_eval_pil", 1)])
def test_pictures_are_those_of_the_published_code(recipe, levels):
    made = torch.from_numpy(VICLIP[OURS[recipe]].pixels.pictures(frames()))
    difference = (made[3].permute(2, 0, 1).int() - expected()[f"pixels.{recipe}.frame3_uint8"].int()).abs()
    assert difference.max() <= levels
    assert difference.float().mean() <= 5e-4
    sums = made.long().sum((1, 2))
    assert (sums - expected()[f"pixels.{recipe}.uint8_sum"]).abs().max() <= levels * 100


@pytest.mark.parametrize("recipe", ["demo", "vbench", "train_eval_pil"])
def test_normalised_pictures_have_the_published_statistics(recipe):
    ours = VICLIP[OURS[recipe]]
    assert [list(ours.mean), list(ours.std)] == settings()["pixel_stats"][recipe]
    images = normalised(recipe)
    assert torch.allclose(images.mean((2, 3)), expected()[f"pixels.{recipe}.mean"], rtol=0, atol=1e-4)
    assert torch.allclose(images.std((2, 3)), expected()[f"pixels.{recipe}.std"], rtol=0, atol=1e-4)
    row = expected()[f"pixels.{recipe}.frame3_row100"]
    assert torch.allclose(images[3, :, 100], row, rtol=0, atol=CLOSE)


def test_every_recipe_of_the_presets_is_there():
    from benchmark.presets import CHOICES

    assert set(CHOICES["viclip_pixels"].admissible) == set(VICLIP)
    stats = {name: (recipe.mean, recipe.std) for name, recipe in VICLIP.items()}
    assert stats == {n: IMAGENET if n.endswith("imagenet") else CLIP for n in VICLIP}


def test_quick_gelu_is_what_the_numbers_need(monkeypatch):
    monkeypatch.setattr(viclip, "quick_gelu", F.gelu)
    raw = module().text_encoder(expected()["text.tokens"])
    assert (raw - expected()["text.feature_raw"]).abs().max() > 100 * CLOSE


@pytest.mark.parametrize("count", [2, 7, 9, 16])
def test_clips_of_another_length_are_refused(count):
    with pytest.raises(ValueError, match=f"clips of 8 frames.*not {count}"):
        module()(torch.zeros(1, count, 3, 224, 224))


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match="reads 196 patches, not 224x256"):
        module()(torch.zeros(1, 8, 3, 224, 256))


@pytest.mark.parametrize(
    ("name", "tensors_of_it", "parameters"),
    [("viclip-b16", 303, 149_603_841), ("viclip-l14", 447, None)],
)
def test_the_published_layout_at_real_size(name, tensors_of_it, parameters):
    with torch.device("meta"):
        made = Viclip(viclip.SHAPES[name])
    state = zeros(made)
    assert len(state) == tensors_of_it
    assert parameters in (None, sum(value.numel() for value in state.values()))
    assert viclip.from_state(name, state, "file").text_length == 32


def test_the_text_table_has_the_rows_of_the_file(small):
    state = viclip_state()
    name = "text_encoder.positional_embedding"
    state[name] = torch.randn(77, state[name].shape[1])
    made = viclip.from_state("viclip-b16", state, "file")
    assert made.text_length == 77
    assert isinstance(made.text_encoder, TextTower)
    assert made.text_encoder(torch.from_numpy(token_table(["a fox"], 77))).shape == (1, 32)


@pytest.mark.parametrize("wrapped", [True, False])
def test_pickles_with_and_without_the_key_model(small, wrapped):
    state = viclip_state()
    path = small / "ViClip-InternVid-10M-FLT.pth"
    torch.save({"model": state, "epoch": 3} if wrapped else state, path)
    read = tensors.read_state(path, "")
    made = viclip.from_state("viclip-l14", read, str(path))
    same = viclip.from_state("viclip-l14", tensors.read_state(write(state, small / "a.safetensors"), ""), "a")
    images = torch.randn(1, 8, 3, 224, 224)
    assert torch.equal(made(images), same(images))


def drop(state):
    del state["vision_encoder.proj"]


def rename(state):
    state["visual.proj"] = state.pop("vision_encoder.proj")


def reshape(state):
    state["vision_encoder.proj"] = torch.zeros(7, 7)


def spoil(state):
    state["vision_encoder.proj"][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, r"file: lacks vision_encoder\.proj: another model"),
        (rename, r"file: lacks vision_encoder\.proj"),
        (reshape, r"file: vision_encoder\.proj is 7x7, not 32x32: another model"),
        (spoil, r"file: vision_encoder\.proj holds NaN or infinity"),
        (
            lambda state: state.update(extra=torch.zeros(1)),
            "file: has extra, which this encoder does not know",
        ),
        (lambda state: state.clear(), "no ViCLIP checkpoint"),
    ],
)
def test_wrong_files_end_in_one_line(small, change, says):
    state = {name: value.clone() for name, value in viclip_state().items()}
    change(state)
    with pytest.raises(WeightsDamaged, match=says) as caught:
        viclip.from_state("viclip-b16", state, "file")
    assert "\n" not in str(caught.value)


def test_half_precision_files_become_float32(small):
    state = {name: value.half() for name, value in viclip_state().items()}
    made = viclip.from_state("viclip-b16", state, "file")
    assert {value.dtype for value in made.state_dict().values()} == {torch.float32}


def test_made_up_numbers_are_the_same_every_time():
    build = partial(Viclip, certificate.small_viclip())
    first, second, other = (tensors.made_up(build, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    name = "vision_encoder.proj"
    assert not torch.equal(first[name], other[name])
    assert abs(float(first[name].std()) - first[name].shape[1] ** -0.5) < 0.02
