"""Which encoders fill a cache, with Wan's autoencoder at a tiny size; and training where they are not."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from memento_model.checkpoints.released import WeightsMissing
from memento_model.codecs.codec import WanCodec
from memento_model.codecs.dct import DctCodec
from memento_model.codecs.text import UMT5
from memento_model.errors import CheckpointError, DataError
from memento_model.training.cache_encoders import Encoders, key_in
from memento_model.training.cache_fill import IMAGES_AT_ONCE, encode_images
from memento_model.training.clip_frames import read_frames, to_model_range
from memento_model.training.inputs import cache_folder, fill_cache, open_cache, read_inputs
from tests.memento_model.films import config, write_dataset
from tests.memento_model.tiny import GRID
from tests.support import GOLDEN

VAE = GOLDEN / "model/vae_tiny/vae.safetensors"
T5 = GOLDEN / "model/t5_tiny/t5.safetensors"


@pytest.fixture
def nothing_fetched(monkeypatch):
    monkeypatch.setattr("memento_model.training.cache_encoders.find", lambda name: None)


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    """(settings, inputs) of a cache that Wan's autoencoder filled."""
    dataset = write_dataset(tmp_path_factory.mktemp("set"), num_films=1)
    run = replace(config(dataset, tmp_path_factory.mktemp("cache")), codec="wan", codec_path=str(VAE))
    inputs, _ = fill_cache(run, read_inputs(run))
    return run, inputs


def test_wans_latents_are_those_of_the_codec(wan):
    run, inputs = wan
    latents, codec, sequence = open_cache(run, inputs), WanCodec.load(VAE), inputs.train[0]
    frames = read_frames(sequence.clips[1].path, range(GRID.num_frames), GRID)
    video = to_model_range(torch.stack([frames[i] for i in range(GRID.num_frames)], dim=1))
    assert (latents.shot(sequence, 1) - codec.encode(video[None])[0]).abs().max() <= 1e-5
    assert (latents.grey().video_cfhw - codec.grey(GRID).video_cfhw).abs().max() <= 1e-5
    given = latents.given_first(sequence, 1).latents_cfhw
    assert (given[:, :1] - latents.shot(sequence, 1)[:, :1]).abs().max() <= 1e-5
    assert (given[:, 1:] - latents.shot(sequence, 1)[:, 1:]).abs().max() > 0.1


def test_names_are_known_without_loading(wan):
    assert Encoders.of(wan[0]).codec_mark() == f"wan-{WanCodec.load(VAE).revision}"
    marks = replace(Encoders.of(wan[0]), text_path=T5).text_mark()
    assert marks == f"umt5-{UMT5.revision_of(T5)}-24x32"
    assert marks != replace(Encoders.of(wan[0]), text_path=T5, text_len=12).text_mark()


def test_a_machine_that_only_trains_needs_no_encoder(wan, nothing_fetched, tmp_path):
    run, inputs = replace(wan[0], codec_path=None), wan[1]
    assert torch.equal(
        open_cache(run, inputs).shot(inputs.train[0], 1), open_cache(*wan).shot(inputs.train[0], 1)
    )
    with pytest.raises(WeightsMissing, match="memento weights pull"):
        fill_cache(run, inputs)
    empty = replace(run, data=replace(run.data, cache=str(tmp_path / "none")))
    with pytest.raises(DataError, match="holds none for this run"):
        open_cache(empty, inputs)
    both = shutil.copytree(cache_folder(run), tmp_path / "two") / "latents"
    shutil.copytree(next(both.iterdir()), both / "wan-other-9x32x48-fp32")
    with pytest.raises(DataError, match="holds 2 of them"):
        open_cache(replace(run, data=replace(run.data, cache=str(both.parent))), inputs)


def test_latents_made_in_tiles_serve_where_there_are_no_others(wan, tmp_path):
    run, _ = wan
    plain = Encoders.of(run).key(run)
    tiled = replace(Encoders.of(run), tiled=True).key(run)
    assert plain != tiled
    (tmp_path / "latents" / tiled.latents).mkdir(parents=True)
    assert key_in(tmp_path, run) == tiled
    (tmp_path / "latents" / plain.latents).mkdir()
    assert key_in(tmp_path, run) == plain


def test_a_wrong_path_is_named(wan):
    with pytest.raises(CheckpointError, match="no such file"):
        Encoders.of(replace(wan[0], codec_path="nowhere"))


class BatchedCodec(DctCodec):
    """A codec that says it is on a GPU."""

    batches = ()

    @property
    def device(self):
        return torch.device("cuda")

    def encode(self, video_bcthw):
        self.batches += (len(video_bcthw),)
        return DctCodec().encode(video_bcthw)


def test_batches_on_a_gpu_are_single_images():
    codec = BatchedCodec()
    images = torch.rand(IMAGES_AT_ONCE + 3, 3, 16, 16) * 2 - 1
    made = encode_images(codec, images)
    assert codec.batches == (IMAGES_AT_ONCE, 3)
    assert torch.allclose(made, DctCodec().encode_images(images), atol=1e-6)
