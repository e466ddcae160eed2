"""`memento cache` as a user meets it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from pipelines.cache_command import CacheOrder, make_config
from pipelines.cli import app
from tests.memento_model.films import write_dataset


def memento(*arguments):
    return CliRunner().invoke(app, ["cache", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("set"))


def test_it_encodes_once_and_says_what_there_is(dataset, tmp_path):
    options = ("--dataset", dataset, "--cache", tmp_path / "cache", "--size", "9x32x48", "--device", "cpu")
    run = memento(*options, "--official", tmp_path / "set.json")
    assert run.exit_code == 0, run.output
    assert "2 sequences of 2 film(s), 4 samples to train on, 0 held out" in run.output
    assert "clips: 6 encoded, 0 were there; prompts: 8 encoded, 0 were there" in run.output
    again = memento(*options, "--verify")
    assert "clips: 0 encoded, 6 were there; prompts: 0 encoded, 8 were there" in again.output
    assert len(json.loads((tmp_path / "set.json").read_text())) == 2
    other = memento(*options[2:], "--dataset", tmp_path / "set.json")
    assert "clips: 0 encoded, 6 were there" in other.output


def test_a_mistake_ends_in_plain_lines(dataset, tmp_path):
    for arguments, told in (
        (("--dataset", tmp_path), "make curate"),
        (("--dataset", dataset, "--size", "21x32x48"), "17 frames; a shot needs 21"),
        (("--dataset", dataset, "--size", "9x32"), "FRAMESxHEIGHTxWIDTH"),
        (("--dataset", dataset, "--dtype", "int8"), "bf16 or fp32"),
        (("--recipe", "none"), "no recipe 'none'"),
        (("--dataset", dataset, "--where", "x = 1"), "x"),
    ):
        run = memento(*arguments, "--cache", tmp_path / "cache")
        assert run.exit_code == 2, run.output
        assert told in run.output
        assert "Traceback" not in run.output


def test_the_command_line_overrides_the_recipe(tmp_path):
    plain = make_config(CacheOrder())
    assert (plain.name, plain.codec, plain.text) == ("debug", "dct", "hashed")
    vae = str(tmp_path / "vae.pth")
    full = make_config(CacheOrder(codec=vae, text="hashed", dtype="fp32", skip_bad=True, size="5x16x32"))
    assert (full.name, full.codec, full.codec_path) == ("low_noise_480p", "wan", vae)
    assert (full.text, full.text_path) == ("hashed", None)
    assert (full.data.cache_dtype, full.data.on_bad_sample, full.grid.num_frames) == ("fp32", "skip", 5)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the demo set is curated first
def test_the_demo_set_can_be_trained_on(demo_set, tmp_path):
    from memento_model.training.cache_plan import last_frames
    from memento_model.training.inputs import open_cache, read_inputs
    from memento_model.training.objective import prepare
    from memento_model.training.samples import draw, samples_of

    order = CacheOrder(dataset=demo_set.job.output, cache=tmp_path)
    run = memento("--dataset", demo_set.job.output, "--cache", tmp_path)
    assert run.exit_code == 0, run.output
    config = make_config(order)
    inputs = read_inputs(config)
    assert inputs.faults == ()
    latents, samples = open_cache(config, inputs), samples_of(inputs.sequences)
    assert len(samples) >= 10
    identities = 0
    for number, sample in enumerate(samples):
        made = draw(sample, config.objective, seed=0, epoch=0, number=number, last_frames=last_frames(config))
        ready = prepare(sample, made, latents, "low", config.compat)
        assert tuple(ready.target_cfhw.shape) == config.grid.latent_shape
        identities += ready.identity_cfhw.shape[1]
    assert identities > 0
