"""The same numbers from one process, and from two and four that share tokens, weights and samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.distributed.launch import World
from memento_model.distributed.parallel import choose_attention, parallelise
from memento_model.distributed.ulysses import cuts
from memento_model.errors import CheckpointError
from tests.memento_model import spread
from tests.memento_model.spread import FORMS, PLAIN, alone, steps

SHARDED = replace(PLAIN, shard=True, checkpoint_activations=True)
ONE = World(device=torch.device("cpu"))


def assert_equal(runs, one, tolerance=1e-5):
    """Every process of `runs` against one process that did all samples: losses, gradients, new weights."""
    for run in runs:
        wanted = [losses[run["data_rank"]] for losses in one["losses"]]
        assert run["losses"] == pytest.approx(wanted, abs=tolerance)
        assert run["norms"] == pytest.approx(one["norms"], rel=1e-4)
        difference = run["prediction"] - one["predictions"][run["data_rank"]]
        assert difference.abs().max() <= tolerance
        for found, expected in zip(run["gradients"], one["gradients"], strict=True):
            assert found.keys() == expected.keys()
            for name, gradient in found.items():
                close = 1e-3 * expected[name].abs().max() + 1e-9
                assert (gradient - expected[name]).abs().max() <= min(close, tolerance), name
    assert all(not run["state"] for run in runs[1:])
    model = runs[0]["state"]["model"]
    assert model.keys() == one["state"]["model"].keys()
    for name, weights in model.items():
        assert (weights - one["state"]["model"][name]).abs().max() <= tolerance, name


def test_cuts_cover_every_token_once():
    assert cuts(15, 2) == [0, 8, 15]
    assert cuts(18, 4) == [0, 5, 10, 14, 18]
    assert cuts(3, 3) == [0, 1, 2, 3]


@pytest.mark.parametrize("form", FORMS)
def test_tokens_over_two_processes(crew_of_two, form):
    assert_equal(crew_of_two.results(steps, PLAIN, form, context_parallel=2), alone(form, 1))


def test_weights_and_samples_over_two_processes(crew_of_two):
    assert_equal(crew_of_two.results(steps, SHARDED, "split", 2), alone("split", 2, 2))


def test_samples_alone_over_two_processes(crew_of_two):
    assert_equal(crew_of_two.results(steps, PLAIN, "split"), alone("split", 2))


def test_gradients_that_only_some_processes_have(crew_of_two):
    assert crew_of_two.results(spread.used_here_and_there) == [[[1.5, 1.5], [0.5, 0.5], None]] * 2


def test_exchange_is_one_message_each_way_in_the_models_type(crew_of_two):
    for seen in crew_of_two.results(spread.exchanges, context_parallel=2):
        *blocks, (last, _, _) = seen["forward"]
        assert len(blocks) == 2 * 2  # q, k and v together, then the result
        for (there, _, whole), (back, result, _) in (blocks[:2], blocks[2:]):
            assert (there, back) == (torch.bfloat16, torch.bfloat16)
            assert whole == 3 * result
        assert last == torch.float32  # the prediction
        assert seen["near"] < 0.02


def test_sampling_is_the_same_on_all_processes(crew_of_two):
    single = spread.sampled(ONE, PLAIN)
    for scale in (PLAIN, SHARDED):
        found = crew_of_two.results(spread.sampled, scale, context_parallel=2)
        assert torch.equal(found[0], found[1])
        assert (found[0] - single).abs().max() < 1e-5


def test_a_state_that_does_not_fit_is_refused_everywhere(crew_of_two):
    for answer in crew_of_two.run(spread.load_a_wrong_state):
        assert isinstance(answer, CheckpointError)
        assert "lacks 1 trainable tensors and has 1 unknown ones" in str(answer)


def test_heads_need_not_divide(crew_of_two):
    wanted, gradients = spread.uneven_heads(ONE)
    for found, own in crew_of_two.results(spread.uneven_heads, context_parallel=2):
        assert (found - wanted).abs().max() < 1e-6
        for one, other in zip(own, gradients, strict=True):
            assert (one - other).abs().max() < 1e-6


def test_heads_that_cannot_be_shared_are_refused(crew_of_two):
    for answer in crew_of_two.run(spread.share_one_head, context_parallel=2):
        assert str(answer) == "2 processes cannot share 1 attention heads; start at most 1"


def test_attention_backends_by_name():
    transformer, query = spread.models()
    given = spread.sample("split", 0)
    with torch.no_grad():
        wanted = spread.predict(transformer, query, given)[0]
        for name in ("sdpa", "math"):
            choose_attention(transformer, name)
            assert (spread.predict(transformer, query, given)[0] - wanted).abs().max() < 1e-5
    for name in ("flash", "cudnn", "sage"):
        with pytest.raises(ValueError, match=f"'{name}' does not run on cpu here .*these do: auto, sdpa"):
            choose_attention(transformer, name)
    with pytest.raises(ValueError, match="no attention backend 'fast': choose one of auto, sdpa"):
        choose_attention(transformer, "fast")
    choose_attention(transformer, "auto")
    with torch.no_grad():
        assert torch.equal(spread.predict(transformer, query, given)[0], wanted)


def test_state_of_one_process_goes_round():
    one = alone("split", 1)
    again = steps(ONE, PLAIN, "split", start=(one["state"], 1))
    wanted = alone("split", 1, 2)
    assert again["losses"] == wanted["losses"][1]
    for name, weights in again["state"]["model"].items():
        assert torch.equal(weights, wanted["state"]["model"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_tokens_over_four_processes(crew_of_four, form):
    assert_equal(crew_of_four.results(steps, PLAIN, form, context_parallel=4), alone(form, 1))


@pytest.mark.slow
@pytest.mark.parametrize("context_parallel", [1, 2, 4])
@pytest.mark.parametrize("train_base", [False, True])
def test_mesh_of_samples_and_tokens(crew_of_four, context_parallel, train_base):
    """Four processes: 4 samples; 2 samples by 2 halves; one sample in quarters; weights over all four."""
    runs = crew_of_four.results(
        spread.steps_of, {"train_base": train_base}, SHARDED, "split", 2, context_parallel=context_parallel
    )
    assert [run["data_rank"] for run in runs] == [rank // context_parallel for rank in range(4)]
    assert_equal(runs, alone("split", 4 // context_parallel, 2, train_base=train_base))


@pytest.mark.slow
def test_saved_by_four_loaded_by_two_and_one(crew_of_four, crew_of_two):
    saved = crew_of_four.results(steps, SHARDED, "split", context_parallel=4)[0]["state"]
    wanted = alone("split", 1, 2)
    for scale in (SHARDED, PLAIN):
        runs = crew_of_two.results(spread.steps_of, {"start": (saved, 1)}, scale, "split", context_parallel=2)
        assert [run["losses"][0] for run in runs] == pytest.approx(wanted["losses"][1] * 2, abs=1e-5)
        for name, weights in runs[0]["state"]["model"].items():
            assert (weights - wanted["state"]["model"][name]).abs().max() < 1e-5, name
    again = steps(ONE, PLAIN, "split", start=(saved, 1))
    assert again["losses"] == pytest.approx(wanted["losses"][1], abs=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own code
def test_compiled_and_sharded_blocks(crew_of_two):
    for context_parallel in (1, 2):
        runs = crew_of_two.results(
            spread.steps_of, {"compiler": "aot_eager"}, replace(SHARDED, compile=True), "split", 2,
            context_parallel=context_parallel,
        )  # fmt: skip
        assert_equal(runs, alone("split", 2 // context_parallel, 2))


@pytest.mark.filterwarnings("ignore")
def test_one_process_needs_nothing_applied():
    transformer, query = spread.models()
    parallelise(transformer, query, scale=PLAIN, world=ONE)
    assert transformer.sequence_parallel is None
    assert type(transformer).__name__ == "MementoTransformer"
    assert not transformer.gradient_checkpointing
