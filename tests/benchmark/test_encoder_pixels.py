from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from benchmark.encoders.certificate import frames
from benchmark.encoders.pixels import CROPS, VICLIP, Pixels, clip_recipe, dinov2_recipe


@pytest.mark.parametrize(
    ("recipe", "frame", "picture"),
    [
        (clip_recipe("center"), (480, 832), (224, 224)),
        (clip_recipe("squash"), (480, 832), (224, 224)),
        (clip_recipe("full"), (480, 832), (224, 392)),
        (clip_recipe("full"), (720, 1280), (224, 392)),
        (dinov2_recipe("full"), (480, 832), (224, 392)),
        (dinov2_recipe("full"), (832, 480), (392, 224)),
        (dinov2_recipe("full"), (300, 300), (224, 224)),
        (dinov2_recipe("center"), (832, 480), (224, 224)),
        (VICLIP["squash-imagenet"], (480, 832), (224, 224)),
        (VICLIP["vbench-crop-clip"], (100, 30), (224, 224)),
    ],
)
def test_sizes(recipe, frame, picture):
    made = recipe.pixels.pictures(np.zeros((2, *frame, 3), np.uint8))
    assert made.shape == (2, *picture, 3)
    assert made.dtype == np.uint8
    assert recipe.pixels.size(*frame) == picture


@pytest.mark.parametrize(
    ("recipe", "size", "box"),
    [
        (clip_recipe("center"), (388, 224), (82, 0, 306, 224)),
        (dinov2_recipe("center"), (443, 256), (110, 16, 334, 240)),
        (dinov2_recipe("squash"), (224, 224), (0, 0, 224, 224)),
        (clip_recipe("full"), (392, 224), (0, 0, 392, 224)),
    ],
)
def test_pictures_are_pillows_within_a_level(recipe, size, box):
    made = recipe.pixels.pictures(frames()).astype(int)
    small = [Image.fromarray(f).resize(size, Image.Resampling.BICUBIC).crop(box) for f in frames()]
    difference = np.abs(made - np.stack([np.asarray(picture) for picture in small]).astype(int))
    assert difference.max() <= 1
    assert difference.mean() <= 5e-3


def test_antialiasing_matters_where_the_names_differ():
    smooth, rough = Pixels(shape="squash"), Pixels(shape="squash", method="bicubic")
    difference = smooth.pictures(frames()).astype(int) - rough.pictures(frames())
    assert np.abs(difference).mean() > 1
    assert smooth.name == "squash224-bicubic-aa"
    assert rough.name == "squash224-bicubic"


def test_names_tell_pictures_apart():
    recipes = [*VICLIP.values(), *(r(c) for r in (clip_recipe, dinov2_recipe) for c in CROPS)]
    made = {}
    for recipe in recipes:
        pictures = recipe.pixels.pictures(frames()[:1])
        assert np.array_equal(made.setdefault(recipe.pixels.name, pictures), pictures)
    assert len({pictures.tobytes() for pictures in made.values()}) == len(made) == 7
    assert len({recipe.name for recipe in recipes}) == len(recipes)


def test_wide_pictures_of_all_frame_encoders_are_the_same():
    assert clip_recipe("full").pixels == dinov2_recipe("full").pixels


def test_frames_may_be_read_only_and_of_the_pictures_size():
    given = frames()[:, :224, :224]
    assert not given.flags.writeable
    made = VICLIP["squash-imagenet"].pixels.pictures(given)
    assert np.array_equal(made, given)
    assert VICLIP["squash-imagenet"].pixels.pictures(frames()).shape == (2, 224, 224, 3)


@pytest.mark.parametrize("method", ["bicubic-aa", "bicubic", "bilinear", "opencv"])
def test_no_frames_give_no_pictures_and_one_by_one_is_the_same(method):
    recipe = Pixels(shape="center", method=method)
    assert recipe.pictures(np.zeros((0, 480, 832, 3), np.uint8)).shape == (0, 224, 224, 3)
    whole = recipe.pictures(frames(9))
    assert np.array_equal(whole, np.concatenate([recipe.pictures(f[None]) for f in frames(9)]))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 3, 8, 8), np.uint8)],
)
def test_what_is_no_frame_is_refused(wrong):
    with pytest.raises(ValueError, match=r"frames must be uint8 \[t, h, w, 3\], not"):
        clip_recipe("center").pixels.pictures(wrong)


@pytest.mark.parametrize("recipe", [clip_recipe, dinov2_recipe])
def test_unknown_crops_are_refused(recipe):
    with pytest.raises(ValueError, match="'middle' is no crop: use one of center, squash, full"):
        recipe("middle")
