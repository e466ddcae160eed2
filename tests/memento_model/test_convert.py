"""Conversions there and back are identities; merging adds what LoRA adds; nothing half is left behind."""

from __future__ import annotations

import itertools
import json
import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from memento_model.checkpoints import names
from memento_model.checkpoints.convert import Options, convert
from memento_model.checkpoints.load import CheckpointError, load_expert, open_checkpoint
from memento_model.checkpoints.tensor_files import open_tensors
from memento_model.nn.lora import drop_adapters, merge_lora
from pipelines.cli import app
from tests.memento_model.weights import NATIVE_CONFIG, native_folder, random_trainable, released, spelt


def contents(folder):
    """All tensors of a native or diffusers folder, by expert's folder and name."""
    return {
        (place.name, name): tensors.read(name)
        for place in sorted(folder.iterdir())
        for tensors in [open_tensors(place)]
        for name in tensors
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def native(tmp_path):
    return native_folder(tmp_path / "native")


@pytest.mark.parametrize("through", ["diffusers", "ours"])
@pytest.mark.parametrize("shard_bytes", [10_000, 10**9])
def test_native_weights_there_and_back(native, tmp_path, through, shard_bytes):
    options = Options(shard_bytes=shard_bytes)
    convert(native, tmp_path / "there", through, options)
    convert(tmp_path / "there", tmp_path / "back", "native", options)
    assert same(contents(native), contents(tmp_path / "back"))
    config = json.loads((tmp_path / "back" / "low_noise_model" / "config.json").read_text())
    assert config == NATIVE_CONFIG
    files = list((tmp_path / "back" / "low_noise_model").glob("*.safetensors"))
    assert (len(files) > 1) == (shard_bytes < 10**9)


def test_diffusers_itself_loads_what_we_write(native, tmp_path):
    from diffusers import WanTransformer3DModel

    convert(native, tmp_path / "there", "diffusers", Options(shard_bytes=10_000))
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "there", subfolder="transformer_2")
    ours = open_checkpoint(native).base("low")[0]
    assert all(torch.equal(theirs.state_dict()[name], ours.read(name)) for name in ours)


SPELLINGS = [
    names.Spelling(expert=expert, container=container, adapter=adapter)
    for expert, container, adapter in itertools.product(
        ("low", None), ("base_model.model.", "diffusion_model.", ""), (True, False)
    )
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_every_spelling_there_and_back(tmp_path, spelling):
    state = random_trainable()
    source = tmp_path / "low_noise.safetensors"
    save_file(spelt(state, spelling), source)
    convert(source, tmp_path / "ours", "ours")
    convert(tmp_path / "ours", tmp_path / "back", "official")
    official = load_file(tmp_path / "back" / "low_noise.safetensors")
    assert same(official, spelt(state, names.OFFICIAL["low"]))
    again = {names.to_spelling(names.from_spelling(name)[0], spelling): v for name, v in official.items()}
    assert same(again, load_file(source))


def test_storymem_there_and_back(tmp_path):
    state = spelt(random_trainable(queries=False), names.STORYMEM)
    save_file(state, tmp_path / "low_noise.safetensors")
    convert(tmp_path / "low_noise.safetensors", tmp_path / "ours", "ours")
    convert(tmp_path / "ours", tmp_path / "back", "storymem")
    assert same(load_file(tmp_path / "back" / "low_noise.safetensors"), state)


def test_queries_that_a_form_cannot_hold_are_told(tmp_path):
    lines = convert(released(tmp_path), tmp_path / "there", "storymem")
    assert lines == [
        "low-noise expert: 40 tensors in low_noise.safetensors",
        "low-noise expert: queries left out (write them: --to official)",
    ]


def test_both_experts_of_a_release_are_converted(tmp_path):
    for expert in ("low", "high"):
        released(tmp_path / "release", expert, seed=len(expert))
    lines = convert(tmp_path / "release", tmp_path / "ours", "ours")
    assert lines == [f"{e}-noise expert: 64 tensors in {e}/trainable.safetensors" for e in ("high", "low")]
    convert(tmp_path / "ours", tmp_path / "back", "official")
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == [
        "high_noise.safetensors",
        "low_noise.safetensors",
    ]


def test_a_training_run_is_its_newest_checkpoints(tmp_path):
    run = tmp_path / "run"
    for seed, (expert, step) in enumerate(itertools.product(("low", "high"), (2, 4))):
        file = released(tmp_path / f"{expert}{step}", expert, seed=seed)
        convert(file, run / expert / f"step-00000{step}", "ours")
        os.utime(run / expert / f"step-00000{step}" / "config.json", (1_000_000 + seed, 1_000_000 + seed))
    lines = convert(run, tmp_path / "official", "official")
    assert lines == [
        *(f"{e}-noise expert: from {run / e / 'step-000004'}" for e in ("high", "low")),
        *(f"{e}-noise expert: 64 tensors in {e}_noise.safetensors" for e in ("high", "low")),
    ]
    for expert in ("low", "high"):
        made = load_file(tmp_path / "official" / f"{expert}_noise.safetensors")
        newest = open_checkpoint(run / expert / "step-000004").trainable(expert)[0]
        assert all(
            torch.equal(made[names.to_spelling(n, names.OFFICIAL[expert])], newest.read(n)) for n in newest
        )


def test_merging_equals_the_models_own(native, tmp_path):
    file = released(tmp_path)
    adapters = open_checkpoint(file)
    model = load_expert(open_checkpoint(native), "low", adapters, dtype=torch.float32).transformer
    merge_lora(model, keep_originals=False)
    drop_adapters(model)
    (native / "high_noise_model").rename(tmp_path / "unused")
    convert(native, tmp_path / "merged", "diffusers", Options(merge=adapters))
    written = open_checkpoint(tmp_path / "merged").base("low")[0]
    for name, value in model.state_dict().items():
        assert torch.allclose(written.read(name), value, atol=1e-6), name
    plain = open_checkpoint(native).base("low")[0]
    assert not torch.equal(written.read("blocks.0.ffn.net.2.weight"), plain.read("blocks.0.ffn.net.2.weight"))


def test_types_change_only_on_request(native, tmp_path):
    convert(native, tmp_path / "half", "native", Options(dtype=torch.bfloat16))
    before, after = contents(native), contents(tmp_path / "half")
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert all(torch.equal(after[name], value.to(torch.bfloat16)) for name, value in before.items())


def refusal(*args):
    with pytest.raises(CheckpointError) as error:
        convert(*args)
    return str(error.value)


def test_what_cannot_be_converted_is_said(native, tmp_path):
    release = released(tmp_path / "release")
    assert "holds adapters only" in refusal(release, tmp_path / "x", "native")
    assert "holds no adapters" in refusal(native, tmp_path / "x", "official")
    assert "no form 'nativ'; there are: native" in refusal(native, tmp_path / "x", "nativ")
    merged = Options(merge=open_checkpoint(release))
    assert "part of the base weights" in refusal(native, tmp_path / "x", "official", merged)
    assert "exists already" in refusal(native, tmp_path / "release", "ours")
    half = Options(dtype=torch.bfloat16)
    for form in ("official", "ours"):
        assert "adapters keep their type" in refusal(release, tmp_path / "x", form, half)
    assert not (tmp_path / "x").exists()


def test_a_failed_conversion_leaves_nothing(native, tmp_path):
    file = native / "low_noise_model" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["head.head.bias"].fill_(float("nan"))
    save_file(state, file)
    assert "NaN" in refusal(native, tmp_path / "there", "diffusers")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["native"]


def test_a_killed_conversion_is_run_again(native, tmp_path):
    left = tmp_path / ".there.part" / "transformer"
    left.mkdir(parents=True)
    (left / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
    convert(native, tmp_path / "there", "diffusers")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["native", "there"]
    assert len(open_checkpoint(tmp_path / "there").base("high")[0]) == 69


def test_the_command_line(native, tmp_path):
    run = CliRunner().invoke
    done = run(app, ["convert", str(native), str(tmp_path / "there"), "--to", "diffusers", "--dtype", "bf16"])
    assert done.exit_code == 0, done.output
    assert "low-noise expert: 69 tensors in 1 files of transformer_2" in done.output
    for arguments in (
        [str(native), str(tmp_path / "there"), "--to", "ours"],
        [str(native), str(tmp_path / "x"), "--to", "theirs"],
        [str(native), str(tmp_path / "x"), "--to", "ours", "--dtype", "int4"],
        [str(tmp_path / "nothing"), str(tmp_path / "x"), "--to", "ours"],
    ):
        done = run(app, ["convert", *arguments])
        assert done.exit_code == 2
        assert done.output.startswith("memento: ")
        assert len(done.output.strip().splitlines()) == 1
