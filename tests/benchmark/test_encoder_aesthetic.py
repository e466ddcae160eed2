from __future__ import annotations

import json

import numpy as np
import pytest

from benchmark.encoders import aesthetic
from tests.support import GOLDEN, shared

HEADS = {"aes_mlp_raw": "mlp", "aes_linear_raw": "linear"}


def golden(name):
    safetensors = pytest.importorskip("safetensors.numpy")
    return safetensors.load_file(GOLDEN / "aesthetic" / name)


def test_scores_are_those_of_the_published_heads():
    expected = golden("aesthetic.safetensors")
    made = aesthetic.scores(expected["features"])
    assert set(made) == set(HEADS)
    for kind, name in HEADS.items():
        assert made[kind].dtype == np.float64
        assert np.abs(made[kind] - expected[f"{name}_score_f64"]).max() < 1e-9
        assert np.abs(made[kind] - expected[f"{name}_score"]).max() < 1e-5


def test_papers_scales():
    expected = golden("aesthetic.safetensors")
    made = aesthetic.scores(expected["features"])
    assert np.abs((made["aes_mlp_raw"] - 1) / 9 - expected["mlp_normalised_f64"]).max() < 1e-9
    assert np.abs(made["aes_linear_raw"] / 10 - expected["linear_normalised_f64"]).max() < 1e-9


def test_kept_vectors_are_the_folded_heads():
    folded = golden("folded_heads.safetensors")
    for kind, (weight, bias) in aesthetic.heads().items():
        assert np.abs(weight - folded[f"{HEADS[kind]}.weight"]).max() < 1e-12
        assert abs(bias - folded[f"{HEADS[kind]}.bias"][0]) < 1e-12


def test_real_features():
    folder = shared("weights/aesthetic/vit_l_14_embeddings")
    means = np.concatenate([np.load(folder / f"rating{i}.npy").reshape(1, -1) for i in range(10)])
    units = means / np.linalg.norm(means.astype(np.float64), axis=1, keepdims=True)
    made = aesthetic.scores(units)
    linear = [-2.458, -0.138, 1.895, 3.585, 5.100, 6.470, 7.787, 9.048, 10.226, 11.304]
    mlp = [1.655, 2.359, 3.070, 3.672, 4.238, 4.701, 5.073, 5.365, 5.577, 5.747]
    assert np.abs(made["aes_linear_raw"] - linear).max() < 6e-4
    assert np.abs(made["aes_mlp_raw"] - mlp).max() < 6e-4


def test_directions_of_the_heads_differ():
    (mlp, _), (linear, _) = (aesthetic.heads()[kind] for kind in HEADS)
    assert abs(mlp @ linear / np.linalg.norm(mlp) / np.linalg.norm(linear) - 0.37) < 0.005


@pytest.mark.parametrize("value", [2.0, 0.0, np.nan, np.inf])
def test_features_that_are_not_of_length_1_are_refused(value):
    units = np.zeros((3, 768))
    units[:, 0] = 1
    units[1, 0] = value
    with pytest.raises(ValueError, match="features of length 1, row 1 has"):
        aesthetic.scores(units)


@pytest.mark.parametrize("shape", [(768,), (2, 512)])
def test_other_features_are_refused(shape):
    with pytest.raises(ValueError, match="need CLIP L/14 features"):
        aesthetic.scores(np.ones(shape))


def test_no_features_give_no_scores():
    assert {kind: s.shape for kind, s in aesthetic.scores(np.zeros((0, 768))).items()} == {
        kind: (0,) for kind in HEADS
    }


def test_sources_are_named():
    listed = json.dumps(aesthetic.SOURCE_SHA256)
    for name in ("sac+logos+ava1-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth"):
        path = shared(f"weights/aesthetic/{name}")
        from curation.weights import sha256_of

        assert sha256_of(path) in listed
