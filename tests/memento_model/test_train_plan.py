"""Estimates before a run: exact where they can be, honest where not."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from io import StringIO

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from rich.console import Console
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from curation.config import SettingsError
from memento_model.config import FrameGrid, Layout, ModelConfig
from memento_model.distributed.offload import Copies, make_lean
from memento_model.nn.lora import inject_lora, lora_layers
from memento_model.nn.rope import _known_turns
from memento_model.nn.transformer import MementoTransformer
from memento_model.training import recipes
from memento_model.training.budget import (
    MACHINES,
    MARGIN,
    Machine,
    activations,
    advice,
    budget,
    cache_bytes,
    count,
    fits,
    step_flops,
)
from memento_model.training.config import DataConfig, ObjectiveConfig
from memento_model.training.inputs import TrainInputs
from memento_model.training.recipes import RECIPES
from memento_model.training.trainer import train_step
from pipelines import train_command
from pipelines.train_command import Order
from tests.memento_model.account import Account
from tests.memento_model.in_memory import config, run_of, sequences


def test_counts_of_the_full_model():
    """Wan2.2-A14B with Memento: 14.3 G frozen, 823,587,840 trained, 46,800 tokens, 3.0 PFLOP forward."""
    counts = count(RECIPES["low_noise_480p"]())
    assert counts.frozen == 14_288_901_184
    assert counts.trained == 823_587_840
    assert counts.tokens == 46_800
    assert counts.flops == pytest.approx(3 * 1.84e15 + 2 * 1.12e15 + 3 * 0.05e15, rel=0.05)


def test_counts_are_those_of_the_model_that_is_built():
    for made in (config(), config(train_base=False)):
        run = run_of(made)
        counts = count(made)
        assert counts.trained == sum(p.numel() for p in run.optimiser.parameters.values())
        everything = sum(p.numel() for m in run.modules.values() for p in m.parameters())
        assert counts.frozen + counts.trained == everything
        sample = run.feed.prepared(0)[2]
        frames = run.forward(sample).conditioning.layout.num_frames
        assert frames * 2 <= counts.tokens


def test_budgets():
    made = RECIPES["low_noise_480p"]()
    one, eight = budget(made, 1), budget(made, 8)
    assert one.weights == pytest.approx(28.6e9 / 2**30, rel=0.02)
    assert one.masters == pytest.approx(823_587_840 * 4 / 2**30)
    assert one.optimiser == pytest.approx(2 * one.masters)
    assert eight.weights == pytest.approx(one.weights / 8)
    apart = replace(made, scale=replace(made.scale, shard=False))
    lean = budget(replace(apart, optim=replace(made.optim, states="8bit")), 1)
    assert lean.optimiser == pytest.approx(one.optimiser / 4)
    assert one.total == pytest.approx(sum(vars(one).values()))
    away = replace(apart, scale=replace(apart.scale, offload_weights=True, offload_activations=True))
    less = budget(away, 1)
    assert less.weights + less.host < one.weights + 40  # two blocks twice, and the stream before 40
    assert less.weights < one.weights / 10
    assert less.total == pytest.approx(sum(vars(less).values()) - less.host)


def test_checkpointing_saves_most_of_the_activations():
    made = RECIPES["low_noise_480p"]()
    kept = replace(made, scale=replace(made.scale, checkpoint_activations=False))
    assert activations(made) < activations(kept) / 5


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "debug"])
def test_every_recipe_fits_every_machine_that_has_a_name(recipe):
    made = RECIPES[recipe]()
    for machine in MACHINES:
        way, needs = advice(made, machine)
        assert fits(needs, machine)
        assert needs.total * 2**30 <= (1 - MARGIN) * machine.gib * 1e9
        assert way.scale.shard == (machine.devices > 1)
        assert way.scale.context_parallel == 1
        assert replace(way, scale=made.scale, compat=made.compat, optim=made.optim) == made


def test_a_machine_costs_no_more_than_it_must():
    """24 GB takes everything; 80 GB keeps what costs nothing of speed or precision."""
    made = RECIPES["low_noise_480p"]()
    (small, _), (large, _), _ = [advice(made, machine) for machine in MACHINES]
    assert small.scale.offload_weights
    assert small.scale.lean_blocks
    assert small.optim.states == "8bit"
    assert not large.scale.offload_weights
    assert not large.scale.lean_blocks
    assert large.compat.residual == "fp32"
    assert large.optim.states == "fp32"
    debug = RECIPES["debug"]()
    for machine in MACHINES[:2]:
        way, needs = advice(debug, machine)
        assert fits(needs, machine)
        assert not way.scale.checkpoint_activations


def test_what_fits_nowhere_is_told_leanest():
    made = RECIPES["low_noise_480p"]()
    way, needs = advice(made, Machine("1x8gb", 1, 8.0))
    assert not fits(needs, Machine("1x8gb", 1, 8.0))
    assert way.scale.offload_weights


def test_heads_need_not_divide_evenly():
    """12 heads over 8 devices: some hold two, some one; the fullest is what counts."""
    made = RECIPES["low_noise_480p"]()
    made = replace(made, model=replace(ModelConfig(), width=1536, num_heads=12))

    def over(context):
        return activations(replace(made, scale=replace(made.scale, context_parallel=context)))

    assert activations(made) / 4 == pytest.approx(over(4))
    tight = Machine("8xtight", 8, 1.01 * budget(_over_eight(made), 8).total * 2**30 / (1 - MARGIN) / 1e9)
    way, needs = advice(made, tight)
    assert way.scale.context_parallel == 8
    assert fits(needs, tight)
    assert over(8) > activations(made) / 8
    assert advice(replace(made, model=replace(made.model, num_heads=6)), tight)[0].scale.context_parallel <= 4


def _over_eight(made):
    """The leanest way that eight devices have, which share a sample."""
    lean = {"lean_blocks": True, "offload_activations": True, "compile": False, "shard": True}
    scale = replace(made.scale, context_parallel=8, **lean)
    return replace(made, scale=scale, compat=replace(made.compat, residual="bf16"))


def test_the_plan_says_what_its_numbers_are(monkeypatch):
    for width in (80, 50):
        said = StringIO()
        plan = Order(recipe="low_noise_480p", plan=True)
        train_command.main(plan, Console(file=said, width=width, soft_wrap=True))
        text = said.getvalue()
        assert "estimated need, as it is set: 92.73 GiB of memory on 1 device; about" in text
        assert "…" not in text  # nothing is cut
        rows = [line for line in text.splitlines() if line.startswith("│")]
        assert max(map(len, rows)) <= max(width, 66)
        assert f"what low_noise_480p sets: {recipes.__file__}\n" in text
        assert all(name in text for name in ("1x24gb", "8x80gb", "scale.checkpoint_activations"))
        assert "memento train low_noise_480p --memory 1x24gb\n" in text
        assert "torchrun --nproc-per-node 8 $(which memento) train low_noise_480p --memory 8x80gb\n" in text
    monkeypatch.setenv("WORLD_SIZE", "8")
    said = StringIO()
    train_command.show_plan(RECIPES["low_noise_480p"](), Console(file=said, soft_wrap=True), whole=False)
    assert (
        "on each of 8 devices; --plan shows what takes less, --memory NAME sets it; about" in said.getvalue()
    )


def test_it_says_why_nothing_is_held_out():
    def told(share, validation=(), train=(1, 2), skipped=0):
        made = config(data=DataConfig(validation_share=share))
        inputs = TrainInputs(train=train, validation=validation, skipped=skipped)
        return train_command.told_split(made, inputs)

    assert told(0.05, (3,), skipped=4) == "2 sequences to train on, 1 held out, 4 samples left out"
    assert told(0.0, train=(1,)).startswith(
        "1 sequence to train on, none held out: data.validation_share is 0 in this run, so there is no"
    )
    assert "films are held out whole, and there is only one" in told(0.05)


SIZE = ModelConfig(
    width=256, num_heads=4, num_layers=4, ffn_width=704, freq_dim=64, text_dim=64, text_len=16, lora_rank=8,
    lora_alpha=8,
)  # fmt: skip


def measured(dtype, residual, **scale):
    """Most bytes that tensors of a step take on the device, and the run's settings."""
    made = config(train_base=False, model=SIZE, grid=FrameGrid(num_frames=33, height=96, width=160))
    made = replace(
        made,
        compat=replace(made.compat, residual=residual),
        objective=ObjectiveConfig(identity_probability=1.0, skip_prior_probability=0.0),
        scale=replace(made.scale, dtype=dtype, **scale),
    )
    run = run_of(made, data=sequences(1, 5))
    count = next(n for n in range(99) if run.feed.drawn(n)[1].identities and run.feed.drawn(n)[0].target > 2)
    run.count = count
    train_step(run)  # optimiser states are there from then on
    run.count = count
    weights = [p for module in run.modules.values() for p in module.parameters()]
    slots, host = [], []
    if scale.get("offload_weights"):
        streamed = run.transformer._run_blocks.args[1]
        host = [piece for packed in streamed.packed for piece in packed.host.values()]
        slots = [piece for slot in streamed.slots for piece in slot.pieces.values()]
    states = [value for state in run.optimiser.adam.state.values() for value in state.values()]
    account = Account([*weights, *slots, *states], elsewhere=host)
    with host_memory_apart(account), account:
        train_step(run)
    return account.peak, made


@contextmanager
def host_memory_apart(account):
    make = Copies.empty_host

    def made(self, *arguments):
        with _disable_current_modes():
            tensor = make(self, *arguments)
        account.leave_out(tensor)
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Copies, "empty_host", made)
        yield


CHECKPOINTS = {"checkpoint_activations": True}
LEANEST = {**CHECKPOINTS, "lean_blocks": True, "offload_activations": True, "offload_weights": True}


@pytest.mark.parametrize(
    ("dtype", "residual", "scale"),
    [
        ("fp32", "fp32", {"checkpoint_activations": False}),
        ("fp32", "fp32", {**CHECKPOINTS, "lean_blocks": True}),
        ("bf16", "fp32", {"checkpoint_activations": False}),
        ("bf16", "fp32", CHECKPOINTS),
        ("bf16", "bf16", {**CHECKPOINTS, "offload_activations": True}),
        ("bf16", "bf16", LEANEST),
    ],
    ids=["kept-fp32", "lean-fp32", "kept", "recomputed", "activations-away", "leanest"],
)
def test_estimates_are_near_what_tensors_take(dtype, residual, scale):
    """All tensors of a real step at small size, counted as they come and go."""
    peak, made = measured(dtype, residual, **scale)
    assert budget(made, 1).total * 2**30 == pytest.approx(peak, rel=0.15)


@pytest.fixture
def fresh_tables():
    """Tables of positions that are kept between calls hold no tensors without data, before or after."""
    _known_turns.cache_clear()
    yield
    _known_turns.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_tables")
@pytest.mark.parametrize("lean", [False, True])
def test_estimates_of_activations_hold_at_full_size(lean):
    """Three blocks at 46,800 tokens, with tensors that have shapes and no data."""
    made = RECIPES["low_noise_480p"]()
    made = replace(
        made,
        model=replace(made.model, num_layers=3),
        compat=replace(made.compat, residual="bf16"),
        scale=replace(made.scale, lean_blocks=lean, compile=False),
    )
    with torch.device("meta"):
        transformer = MementoTransformer.from_config(made.model, compat=made.compat)
    transformer.requires_grad_(False).cast(torch.bfloat16)
    inject_lora(transformer.train(), made.model, made.compat)
    transformer.enable_gradient_checkpointing()
    for layer in lora_layers(transformer).values():
        layer.cast_input_dtype_enabled = False
    if lean:
        make_lean(transformer)
    layout = Layout(identity_frames=1, memory_frames=8, target_frames=21)
    with FakeTensorMode():
        for module in transformer.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    empty = torch.empty(p.shape, dtype=p.dtype)
                    module._parameters[name] = torch.nn.Parameter(empty, requires_grad=p.requires_grad)
        text, latents = torch.randn(200, 4096), torch.randn(1, 36, 30, 60, 104)
        account = Account(elsewhere=transformer.parameters())
        with account:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = transformer(
                    latents, torch.tensor([500.0]), [text], positions_bf=torch.arange(-9, 21)[None],
                    layout=layout, identity_text=[[text]],
                )  # fmt: skip
            out.square().mean().backward()
    assert activations(made) == pytest.approx(account.peak, rel=0.15)


def test_work_grows_with_the_sequence():
    made = RECIPES["low_noise_480p"]()
    joint = replace(made, objective=replace(made.objective, split_attention=False))
    assert step_flops(made) > step_flops(joint)  # two overlapping squares are more than one
    assert cache_bytes(made, 20_000) == pytest.approx(20 * cache_bytes(made, 1000))


def test_a_run_fitted_to_one_device_can_be_planned_for_many():
    recipe = RECIPES["low_noise_480p"]()
    lean = replace(
        recipe, optim=replace(recipe.optim, states="8bit"), scale=replace(recipe.scale, shard=False)
    )
    ways = {machine.name: advice(lean, machine)[0] for machine in MACHINES}
    assert (ways["1x24gb"].optim.states, ways["8x80gb"].optim.states) == ("8bit", "fp32")


def test_a_run_for_eight_devices_is_not_begun_on_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    order = Order(recipe="low_noise_480p", memory="8x80gb")
    with pytest.raises(SettingsError, match=r"8 processes, here is 1: torchrun --nproc-per-node 8"):
        train_command.enough_processes(RECIPES["low_noise_480p"](), order)
    monkeypatch.setenv("WORLD_SIZE", "8")
    train_command.enough_processes(RECIPES["low_noise_480p"](), order)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("optim", "lr", -1.0), ("optim", "betas", (0.9, 1.5)), ("optim", "ema_decay", 1.5),
        ("objective", "drop_probability", 1.5), ("objective", "num_identities", 0),
        ("watch", "sample_every", -1), ("scale", "context_parallel", 0), ("data", "validation_share", 2.0),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_named(part, name, value):
    recipe = RECIPES["debug"]()
    with pytest.raises(ValueError, match=rf"^{part}\.{name} is "):
        replace(recipe, **{part: replace(getattr(recipe, part), **{name: value})})
