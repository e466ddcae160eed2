"""Wan's video autoencoder against the numbers of the official one, at a tiny size."""

from __future__ import annotations

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
from safetensors.torch import load_file, save_file

from memento_model.codecs.codec import Codec, WanCodec
from memento_model.codecs.dct import DctCodec
from memento_model.config import FrameGrid
from memento_model.errors import CheckpointError
from tests.support import GOLDEN

VAE = GOLDEN / "model/vae_tiny"


@pytest.fixture(scope="module")
def golden():
    return load_file(VAE / "io.safetensors")


@pytest.fixture(scope="module")
def codec():
    return WanCodec.load(VAE / "vae.safetensors")


def test_encode_and_decode_equal_the_reference(codec, golden):
    assert (codec.encode(golden["video"]) - golden["latent"]).abs().max() <= 1e-4
    assert (codec.decode(golden["latent"]) - golden["decoded"].clamp(-1, 1)).abs().max() <= 1e-4


def test_the_normalisation_is_wans(codec, golden):
    assert torch.equal(codec._mean.flatten(), golden["mean"])
    assert torch.equal(codec._std.flatten(), golden["std"])


def test_images_are_encoded_alone(codec, golden):
    images = golden["video"][0, :, [0, 8]].transpose(0, 1)
    expected = golden["single_frame_latents"][0].transpose(0, 1)
    assert (codec.encode_images(images) - expected).abs().max() <= 1e-4


def test_grey_differs_from_frame_to_frame_and_is_computed_once(codec, golden, monkeypatch):
    grid = FrameGrid(num_frames=9, height=32, width=48)
    grey = codec.grey(grid)
    assert (grey.video_cfhw - golden["grey_latent"][0]).abs().max() <= 1e-4
    assert (grey.video_cfhw[:, :1] - grey.frame_cfhw).abs().max() <= 1e-6
    assert (grey.video_cfhw[:, 1] - grey.video_cfhw[:, 0]).abs().max() > 1e-3
    monkeypatch.setattr(codec, "encode", None)
    assert torch.equal(codec.grey(grid).video_cfhw, grey.video_cfhw)


def test_a_batch_is_its_samples(codec, golden):
    twice = torch.cat([golden["video"], -golden["video"]])
    latents = codec.encode(twice)
    assert torch.equal(latents[:1], codec.encode(golden["video"]))
    assert torch.equal(codec.decode(latents)[1:], codec.decode(latents[1:]))


def test_bf16_is_close_and_named(codec, golden):
    rough = WanCodec.load(VAE / "vae.safetensors", dtype=torch.bfloat16)
    latents = rough.encode(golden["video"])
    assert latents.dtype == torch.float32
    assert 0 < (latents - golden["latent"]).abs().max() < 0.1
    assert rough.revision != codec.revision


def test_tiles_are_close(codec):
    tiled = WanCodec.load(VAE / "vae.safetensors", tiled=True)
    video = torch.linspace(-1, 1, 264).expand(1, 3, 1, 264, 264).contiguous()
    whole, parts = codec.encode(video), tiled.encode(video)
    assert whole.shape == parts.shape
    assert torch.corrcoef(torch.stack([whole.flatten(), parts.flatten()]))[0, 1] > 0.95
    assert not torch.equal(whole, parts)
    assert tiled.decode(parts).shape == video.shape
    assert tiled.revision != codec.revision


def test_every_form_of_the_weights_gives_the_same_codec(codec, golden, tmp_path):
    native = load_file(VAE / "vae.safetensors")
    torch.save(native, tmp_path / "Wan2.1_VAE.pth")
    codec._vae.save_pretrained(tmp_path / "model" / "vae")
    for place in (tmp_path, tmp_path / "Wan2.1_VAE.pth", tmp_path / "model", tmp_path / "model" / "vae"):
        other = WanCodec.load(place)
        assert torch.equal(other.encode(golden["video"]), codec.encode(golden["video"]))


def test_both_codecs_answer_to_the_same_calls(codec):
    for one in (codec, DctCodec()):
        assert isinstance(one.name, str)
        assert one.revision
        assert one.to("cpu") is one
        assert one.device == torch.device("cpu")
        assert Codec in type(one).__mro__
        assert one.encode(torch.zeros(1, 3, 5, 16, 16)).dtype == torch.float32


def damaged(tmp_path, change):
    state = load_file(VAE / "vae.safetensors")
    change(state)
    save_file(state, tmp_path / "vae.safetensors")
    return tmp_path / "vae.safetensors"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("decoder.head.2.bias"), "193 of 194 tensors fit: 1 missing .decoder.conv_out.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown parameter name: extra"),
        (lambda s: s.update({"decoder.head.2.bias": torch.zeros(4)}), "decoder.conv_out.bias is 4, not 3"),
        (lambda s: s["encoder.conv1.bias"].fill_(float("nan")), "NaN"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("conv2")], "not the weights"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, change, says):
    with pytest.raises(CheckpointError, match=says) as error:
        WanCodec.load(damaged(tmp_path, change))
    assert "\n" not in str(error.value)


def test_another_autoencoder_is_refused_by_name(codec, tmp_path):
    codec._vae.save_pretrained(tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {"z_dim": 48}))
    with pytest.raises(CheckpointError, match="TI2V-5B"):
        WanCodec.load(tmp_path / "vae")
    shutil.rmtree(tmp_path / "vae")
    with pytest.raises(CheckpointError, match="holds no weights"):
        WanCodec.load(tmp_path)
