"""What lies in host memory changes no number, and the device holds as little as the plan says."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.distributed.offload import SLOTS, Copies, StreamedWeights
from memento_model.nn.lora import lora_layers
from memento_model.training.trainer import fit, train_step
from memento_model.training.watch import validate
from tests.memento_model.in_memory import MODEL, InMemory, Quiet, config, run_of, sequences, weights

DEEP = replace(MODEL, num_layers=5)


def settings(dtype="fp32", **scale):
    """Frozen base, computed again in the backward pass."""
    made = config(train_base=False, model=DEEP, steps=3)
    return replace(made, scale=replace(made.scale, dtype=dtype, checkpoint_activations=True, **scale))


def trained(made):
    """Losses of three steps and what they made of the weights; the output layer is not silent."""
    run, quiet = run_of(made), Quiet()
    torch.manual_seed(5)
    with torch.no_grad():
        run.transformer.proj_out.weight.normal_(0, 0.1)
        for name, parameter in run.optimiser.parameters.items():
            if ".lora_B" in name:
                parameter.normal_(0, 0.1)
    fit(run, quiet, quiet)
    return [done.losses[0] for done in quiet.done], weights(run), run


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        ("fp32", {"offload_weights": True}),
        ("fp32", {"offload_activations": True}),
        ("fp32", {"lean_blocks": True}),
        ("bf16", {"offload_weights": True, "offload_activations": True}),
        ("bf16", {"offload_weights": True, "offload_activations": True, "lean_blocks": True}),
    ],
    ids=["weights", "activations", "lean", "away-bf16", "all-bf16"],
)
def test_the_numbers_stay(dtype, scale):
    losses, after, _ = trained(settings(dtype))
    made, became, _ = trained(settings(dtype, **scale))
    exact = "lean_blocks" not in scale  # pieces of the tokens add up in another order
    for one, other in zip(losses, made, strict=True):
        apart = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-2, "atol": 0.0}
        torch.testing.assert_close(other, one, equal_nan=True, **apart)
        assert torch.isfinite(one[0])
    for name, value in after.items():
        if exact:
            assert torch.equal(value, became[name]), name
        elif dtype == "fp32":
            torch.testing.assert_close(became[name], value, rtol=1e-3, atol=1e-4)


def test_two_blocks_are_on_the_device_and_the_rest_is_whole():
    """Frozen weights are in the slots or in host memory, nowhere else, and nothing changed them."""
    made = settings()
    plain, run = run_of(made), run_of(replace(made, scale=replace(made.scale, offload_weights=True)))
    before = {name: p.clone() for name, p in plain.transformer.named_parameters()}
    for _ in range(2):
        train_step(run)
    for name, parameter in run.transformer.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name
    storages = [
        {p.untyped_storage().data_ptr() for p in block.parameters() if not p.requires_grad}
        for block in run.transformer.blocks
    ]
    assert all(len(one) == 1 for one in storages)  # one piece for each type of number
    assert len(set.union(*storages)) == len(storages)


def test_slots_follow_the_blocks_in_both_directions():
    blocks = [torch.nn.Linear(3, 2).requires_grad_(False) for _ in range(5)]
    values = [block.weight.clone() for block in blocks]
    streamed = StreamedWeights(blocks, Copies(torch.device("cpu")))
    assert len(streamed.slots) == SLOTS
    assert streamed.host_bytes == 5 * 128 * 4
    loads = []
    load = streamed._load
    streamed._load = lambda index: (loads.append(index), load(index))[1]
    for index in [*range(5), *reversed(range(5)), *range(5), 0, 3]:
        streamed.use(index)
        slot = streamed.slots[index % SLOTS]
        assert slot.holds == index
        assert torch.equal(blocks[index].weight, values[index])
        assert blocks[index].weight.untyped_storage().data_ptr() == (
            slot.pieces[torch.float32].untyped_storage().data_ptr()
        )
    # The next block is always asked for while one computes: 4 is followed by 3, 2, 1 on the way back.
    assert loads[:19] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 3, 2, 2, 1, 1, 0, 0, 1, 0]


def test_held_out_losses_need_no_backward_pass():
    made = settings(offload_weights=True, offload_activations=True)
    run, plain = run_of(made), run_of(settings())
    feed = type(run.feed)(sequences(1), InMemory(model=DEEP), made)
    assert validate(run, feed) == validate(plain, feed)


def test_adapters_read_bf16_without_a_copy():
    for dtype, kept in (("bf16", False), ("fp32", True)):
        layers = lora_layers(run_of(settings(dtype)).transformer)
        assert {layer.cast_input_dtype_enabled for layer in layers.values()} == {kept}


def test_a_pass_that_keeps_weights_is_refused():
    run = run_of(settings(offload_weights=True))
    run.transformer.disable_gradient_checkpointing()
    with pytest.raises(RuntimeError, match="need activation checkpoints"):
        train_step(run)


@pytest.mark.parametrize(
    ("scale", "more", "said"),
    [
        ({"offload_weights": True, "checkpoint_activations": False}, {}, "offload_weights needs"),
        ({"lean_blocks": True, "checkpoint_activations": False}, {}, "lean_blocks needs"),
        ({"offload_weights": True}, {"train_base": True}, "frozen weights"),
        ({"offload_weights": True, "shard": True}, {}, "either shared out or kept on the host"),
        ({"lean_blocks": True, "compile": True}, {}, "not compiled"),
    ],
)
def test_what_does_not_go_together_is_refused(scale, more, said):
    made = settings()
    with pytest.raises(ValueError, match=said):
        replace(made, scale=replace(made.scale, **scale), **more)
