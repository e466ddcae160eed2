"""Every form of weights opens, loads and is refused when wrong; ours is written and read back."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")
from safetensors.torch import load_file, save_file

from memento_model.checkpoints import names
from memento_model.checkpoints.load import (
    CheckpointError,
    load_expert,
    load_transformer,
    open_checkpoint,
    save_expert,
)
from memento_model.nn.lora import trainable_tensors
from tests.memento_model.weights import (
    TINY,
    TINY_T2V,
    native_folder,
    random_base,
    random_trainable,
    released,
    spelt,
    write_sharded,
)

SPELLINGS = [
    names.Spelling(expert=expert, container=container, adapter=adapter)
    for expert, container, adapter in itertools.product(
        ("low", None), ("base_model.model.", ""), (True, False)
    )
]


def refusal(action, *args):
    with pytest.raises(CheckpointError) as error:
        action(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewrite(file, change):
    """Change the tensors of a safetensors file in place."""
    state = load_file(file)
    change(state)
    save_file({name: value.clone() for name, value in state.items()}, file)


@pytest.fixture
def native(tmp_path):
    return native_folder(tmp_path / "Wan2.2-I2V-A14B")


@pytest.fixture
def low(native):
    return native / "low_noise_model" / "diffusion_pytorch_model.safetensors"


def test_a_native_folder_loads_both_experts(native):
    checkpoint = open_checkpoint(native)
    assert (checkpoint.kind, list(checkpoint.experts)) == ("native", ["high", "low"])
    for expert in ("high", "low"):
        model, config = load_transformer(checkpoint, expert, dtype=torch.float32)
        assert config == replace(TINY, lora_rank=128, lora_alpha=128)
        expected = random_base(len(expert))
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
        assert model.text_len == 6
        assert not model.training


def test_dtypes_on_loading(native):
    model, _ = load_transformer(open_checkpoint(native), "low", dtype=torch.bfloat16)
    types = {name: value.dtype for name, value in model.state_dict().items()}
    assert types["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert types["condition_embedder.time_proj.weight"] == torch.float32
    assert types["blocks.1.scale_shift_table"] == torch.float32
    assert not any(value.is_meta for value in model.state_dict().values())


def test_a_diffusers_folder_loads(tmp_path):
    from memento_model.checkpoints.foreign_config import to_diffusers_config

    for expert, name in (("high", "transformer"), ("low", "transformer_2")):
        write_sharded(random_base(len(expert)), tmp_path / name, 1 + (expert == "low"))
        (tmp_path / name / "config.json").write_text(json.dumps(to_diffusers_config(TINY)))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.kind == "diffusers"
    state = load_transformer(checkpoint, "high", dtype=torch.float32)[0].state_dict()
    assert torch.equal(state["proj_out.weight"], random_base(4)["proj_out.weight"])


def test_the_folder_that_diffusers_itself_saves_loads(tmp_path):
    from diffusers import WanTransformer3DModel

    from memento_model.nn.transformer import wan_arguments

    theirs = WanTransformer3DModel(**wan_arguments(TINY))
    theirs.save_pretrained(tmp_path / "transformer")
    model, config = load_transformer(open_checkpoint(tmp_path), "high", dtype=torch.float32)
    assert (config.width, config.num_heads, config.text_len) == (24, 2, 512)
    for name, value in theirs.state_dict().items():
        if not name.startswith("rope"):
            assert torch.equal(model.state_dict()[name], value)


def test_one_file_of_a_bundle_loads(tmp_path):
    """Single files without a config, native names behind a bundle's prefix, heads of 128 channels."""
    config = replace(TINY, width=128, num_heads=1, text_len=512)
    state = {names.BUNDLED + names.to_native(name): value for name, value in random_base(0, config).items()}
    save_file(state | {"vae.decoder": torch.zeros(1)}, tmp_path / "wan2.2_i2v_high_noise.safetensors")
    checkpoint = open_checkpoint(tmp_path / "wan2.2_i2v_high_noise.safetensors")
    assert list(checkpoint.experts) == ["high"]
    _, found = checkpoint.base("high")
    assert (found.width, found.num_heads, found.num_layers) == (128, 1, 2)


def test_the_t2v_form_is_told_by_its_channels(tmp_path):
    state = {names.to_native(name): value for name, value in random_base(0, TINY_T2V).items()}
    write_sharded(state, tmp_path / "high_noise_model", 1)
    (tmp_path / "high_noise_model" / "config.json").write_text(json.dumps({"in_dim": 16, "num_heads": 2}))
    _, config = open_checkpoint(tmp_path).base("high")
    assert not config.has_condition


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_every_spelling_of_a_release_loads_and_counts(native, tmp_path, spelling, ending):
    expected = random_trainable()
    file = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(spelt(expected, spelling), file)
    made = load_expert(open_checkpoint(native), "low", open_checkpoint(file), dtype=torch.float32)
    assert (made.config.lora_rank, made.config.num_local_queries) == (4, 10)
    found = trainable_tensors(made.transformer, made.keyframe_query)
    assert len(found) == 2 * 20 + 24
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_storymem_has_no_queries(native, tmp_path):
    state = random_trainable(queries=False)
    save_file(spelt(state, names.STORYMEM), tmp_path / "backbone_low_noise.safetensors")
    made = load_expert(
        open_checkpoint(native), "low", open_checkpoint(tmp_path / "backbone_low_noise.safetensors")
    )
    assert made.keyframe_query is None
    assert len(trainable_tensors(made.transformer, None)) == 40


def test_a_folder_of_two_released_files(native, tmp_path):
    for expert in ("low", "high"):
        released(tmp_path / "release", expert, seed=len(expert))
    checkpoint = open_checkpoint(tmp_path / "release")
    assert list(checkpoint.experts) == ["high", "low"]
    tensors, _ = checkpoint.trainable("high")
    assert torch.equal(tensors.read("keyframe_query.queries"), random_trainable(4)["keyframe_query.queries"])


def test_one_file_with_both_experts(tmp_path):
    state = spelt(random_trainable(1), names.OFFICIAL["low"]) | spelt(
        random_trainable(2), names.OFFICIAL["high"]
    )
    torch.save({"epoch": 1, "trainable": state}, tmp_path / "checkpoint_step9.pth")
    checkpoint = open_checkpoint(tmp_path / "checkpoint_step9.pth")
    for expert, seed in (("low", 1), ("high", 2)):
        tensors, _ = checkpoint.trainable(expert)
        assert torch.equal(
            tensors.read("keyframe_query.queries"), random_trainable(seed)["keyframe_query.queries"]
        )


def test_a_name_that_contradicts_the_tensors_is_refused(tmp_path):
    file = released(tmp_path, "low").rename(tmp_path / "high_noise_model.safetensors")
    assert refusal(open_checkpoint, file) == (
        f"{file}: named as the high-noise expert's, but its tensors begin with low_noise_model.; "
        "rename the file if the tensors are right"
    )
    for name in ("low_noise_model", "adapters", "high_and_low"):  # agrees, says nothing, says both
        file = file.rename(tmp_path / f"{name}.safetensors")
        assert list(open_checkpoint(file).experts) == ["low"]
    assert "not the high-noise one's" in refusal(_swapped(tmp_path / "swapped").trainable, "high")


def _swapped(folder):
    """Both experts' files, each by the name of the other."""
    files = {expert: released(folder, expert) for expert in ("low", "high")}
    files["low"].rename(folder / "kept.bin")
    files["high"].rename(files["low"])
    (folder / "kept.bin").rename(files["high"])
    return open_checkpoint(folder)


def test_the_other_experts_file_is_refused(tmp_path):
    checkpoint = open_checkpoint(released(tmp_path, "high"))
    assert "holds nothing of the low-noise expert, only of: high" in refusal(checkpoint.trainable, "low")


LORA = "low_noise_model.base_model.model.blocks.1.ffn.2.lora_B.default.weight"
QUERY = "low_noise_model.base_model.model.keyframe_query.queries_global"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop(LORA), "63 of 64 tensors fit: 1 missing (blocks.1.ffn.2.lora_B.default.weight)"),
        (lambda s: s.pop(QUERY), "63 of 64 tensors fit: 1 missing (keyframe_query.queries_global)"),
        (lambda s: s.update({LORA: s[LORA].T.contiguous()}), "63 of 64 tensors fit: blocks.1.ffn.2"),
        (lambda s: s.update({LORA: s[LORA].to(torch.int8)}), "quantised"),
        (lambda s: s.update({"blocks.0.gate": torch.ones(1)}), "part of keyframe_query: blocks.0.gate"),
        (lambda s: s.update({"blocks.1.ffn.2.lora_B.weight": s[LORA]}), "are the same tensor"),
        (lambda s: s.update({QUERY + "_too": s[QUERY]}), "1 unknown (keyframe_query.queries_global_too)"),
        (lambda s: [s.pop(k) for k in list(s) if ".blocks.0.self_attn.q." in k], "no LoRA of a Wan"),
    ],
)  # fmt: skip
def test_wrong_releases_are_refused_by_name(tmp_path, change, says):
    file = released(tmp_path)
    rewrite(file, change)
    assert says in refusal(lambda: open_checkpoint(file).trainable("low"))


def test_a_release_of_another_size_is_refused(native, tmp_path):
    other = replace(TINY, num_layers=3)
    save_file(random_trainable(1, other), tmp_path / "low.safetensors")
    line = refusal(load_expert, open_checkpoint(native), "low", open_checkpoint(tmp_path / "low.safetensors"))
    assert "20 unknown (blocks.2." in line


def test_values_that_are_not_finite_are_refused(native, tmp_path):
    file = released(tmp_path)
    rewrite(file, lambda s: s[LORA].fill_(float("nan")))
    line = refusal(load_expert, open_checkpoint(native), "low", open_checkpoint(file))
    assert "lora_B.default.weight holds NaN" in line


def test_dead_query_norms_are_told(native, tmp_path, caplog):
    file = released(tmp_path)
    rewrite(file, lambda s: [value.zero_() for name, value in s.items() if ".norm_" in name])
    with caplog.at_level(logging.WARNING):
        load_expert(open_checkpoint(native), "low", open_checkpoint(file))
    (record,) = caplog.records
    assert "4 of 4 norms of KeyframeQuery are all zero" in record.message
    assert "\n" not in record.message
    caplog.clear()
    open_checkpoint(released(tmp_path)).trainable("low")
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("blocks.1.norm3.bias"), "1 missing (blocks.1.norm2.bias)"),
        (lambda s: s.update({"img_emb.proj.0.weight": torch.ones(1)}), "unknown parameter name: img_emb"),
        (lambda s: s.update({"blocks.0.self_attn.k.weight": torch.ones(24, 25)}), "24x25, not 24x24"),
        (lambda s: s.pop("patch_embedding.weight"), "not the weights of a Wan transformer"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.1.")],
            "num_layers 2, the tensors say 1",
        ),
        (lambda s: s["head.head.bias"].fill_(float("inf")), "head.head.bias holds NaN or infinity"),
    ],
)
def test_wrong_base_weights_are_refused_by_name(native, low, change, says):
    rewrite(low, change)
    assert says in refusal(lambda: load_transformer(open_checkpoint(native), "low"))


def test_missing_shards_experts_and_folders_are_named(native, tmp_path):
    (native / "high_noise_model" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    assert "00002-of-00002.safetensors: missing" in refusal(open_checkpoint, native)
    shutil.rmtree(native / "high_noise_model")
    assert "nothing of the high-noise expert" in refusal(open_checkpoint(native).base, "high")
    assert "holds no LoRA weights" in refusal(open_checkpoint(native).trainable, "low")
    assert "no such file" in refusal(open_checkpoint, tmp_path / "nowhere")


def test_full_width_with_too_few_blocks_is_refused(tmp_path):
    full = replace(TINY, width=5120, num_heads=40, num_layers=39, lora_rank=1)
    from memento_model.checkpoints.foreign_config import config_of_trainable, lora_shapes

    line = refusal(config_of_trainable, lora_shapes(full), tmp_path)
    assert "39 blocks of Wan2.2-A14B's 40" in line


@pytest.mark.parametrize("number", ["64", "1000000000", "9" * 5000])
def test_a_block_that_no_file_can_have_is_refused_at_once(native, low, tmp_path, number):
    """The tensors of a billion blocks could not even be named."""
    file = released(tmp_path)
    rewrite(file, lambda s: s.update({LORA.replace("blocks.1", f"blocks.{number}"): s.pop(LORA)}))
    says = f"names block {number[:20]}, but holds 64 tensors in all"
    assert says in refusal(open_checkpoint(file).trainable, "low")
    rewrite(low, lambda s: s.update({f"blocks.{number}1.norm3.bias": s.pop("blocks.1.norm3.bias")}))
    assert f"names block {number[:20]}" in refusal(open_checkpoint(native).base, "low")


def test_ours_is_written_and_read_back(tmp_path):
    base, trainable = random_base(), random_trainable()
    for expert in ("low", "high"):
        save_expert(tmp_path, expert, TINY, base=base, trainable=trainable, notes={"step": 7})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.kind == "ours"
    assert checkpoint.settings["notes"] == {"low": {"step": 7}, "high": {"step": 7}}
    made = load_expert(checkpoint, "high", dtype=torch.float32)
    assert made.config == TINY
    found = trainable_tensors(made.transformer, made.keyframe_query)
    assert all(torch.equal(found[name], value) for name, value in trainable.items())
    assert torch.equal(made.transformer.proj_out.weight, base["proj_out.weight"])


def test_ours_without_base_stands_on_wans(native, tmp_path):
    save_expert(tmp_path / "ours", "low", TINY, trainable=random_trainable())
    made = load_expert(open_checkpoint(native), "low", open_checkpoint(tmp_path / "ours"))
    assert made.config == TINY
    assert "holds no base weights" in refusal(open_checkpoint(tmp_path / "ours").base, "low")


def test_saving_refuses_what_does_not_fit(tmp_path):
    trainable = random_trainable()
    first = next(iter(trainable))
    for wrong in (
        {name: value for name, value in trainable.items() if name != first},
        trainable | {first: trainable[first].T},
        trainable | {"more": torch.ones(1)},
    ):
        assert "not saved" in refusal(lambda w=wrong: save_expert(tmp_path, "low", TINY, trainable=w))
    assert list(tmp_path.iterdir()) == []
    save_expert(tmp_path, "low", TINY, trainable=trainable)
    other = replace(TINY, lora_alpha=8)
    assert "of another model" in refusal(lambda: save_expert(tmp_path, "high", other, trainable=trainable))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(version=9), "this program reads memento-checkpoint version 1"),
        (lambda c: c.update(format="other"), "format 'other'"),
        (lambda c: c["model"].pop("width"), "exactly our settings (see width)"),
        (lambda c: c["model"].update(width=25), "does not split into 2 heads"),
        (lambda c: c["model"].update(width="wide"), "config.json"),
        (lambda c: c["model"].update(num_layers="2"), "num_layers is '2', which no model has"),
        (lambda c: c["model"].update(num_layers=10**9), "num_layers is 1000000000, which no model has"),
        (lambda c: c["model"].update(eps=float("nan")), "eps is nan, which no model has"),
        (lambda c: c.pop("model"), "exactly our settings"),
        (lambda c: c["experts"].update(low=["base", "trainable"]), "lacks base.safetensors"),
    ],
)
def test_wrong_config_files_are_refused(tmp_path, change, says):
    save_expert(tmp_path, "low", TINY, trainable=random_trainable())
    config = json.loads((tmp_path / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert says in refusal(lambda: open_checkpoint(tmp_path).trainable("low"))


def test_a_loaded_model_can_change_without_changing_its_file(native, low):
    before = low.read_bytes()
    model, _ = load_transformer(open_checkpoint(native), "low", dtype=torch.float32)
    with torch.no_grad():
        model.proj_out.weight.add_(1)
    assert low.read_bytes() == before
