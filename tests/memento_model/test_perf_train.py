"""The peer of the training benchmark computes what our step computes, and its parts run at any size."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from memento_model.config import FrameGrid, ModelConfig
from memento_model.training.cache_encoders import Encoders
from memento_model.training.trainer import settle_gradients
from perf import train_full, train_step
from perf.train_encoders import NarrowEncoders

TINY = ModelConfig(
    width=48, num_heads=2, num_layers=2, ffn_width=64, freq_dim=16, text_dim=24, text_len=12, lora_rank=4,
    lora_alpha=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Both sides on a small set, by kind of encoders; the output layer is not silent."""
    folder = tmp_path_factory.mktemp("perf")
    train_step.write_set(folder)
    config = replace(train_step.settings(folder), model=TINY)
    own = Encoders.of(config)
    narrow = NarrowEncoders(codec_path=None, text_path=None, text_dim=own.text_dim, text_len=own.text_len)
    return lambda narrowed: train_step.open_both(config, narrow if narrowed else own)


@pytest.mark.parametrize("narrowed", [False, True])
def test_the_plain_step_agrees(opened, narrowed):
    """Loss and every gradient of the first step, then the losses of some updates."""
    both = opened(narrowed)
    assert both.plain.transformer.recompute
    run = both.run
    loss = run.forward(run.feed.prepared(0)[2]).loss.total
    loss.backward()
    settle_gradients(run)
    plain = both.plain_loss(both.encoded(0), 0)
    plain.backward()
    torch.testing.assert_close(plain, loss, rtol=1e-5, atol=1e-6)
    peers = {f"transformer.{name}": value for name, value in both.plain.weights.items()}
    peers |= {f"keyframe_query.{name}": value for name, value in both.plain.query_weights.items()}
    assert peers.keys() == run.optimiser.parameters.keys()
    for name, parameter in run.optimiser.parameters.items():
        theirs = torch.zeros_like(parameter) if peers[name].grad is None else peers[name].grad
        torch.testing.assert_close(theirs, parameter.grad, rtol=1e-3, atol=1e-6, msg=name)
        parameter.grad = peers[name].grad = None
    assert train_step.check(both) < train_step.TOLERANCE


def test_the_plain_step_encodes_everything_anew(opened, monkeypatch):
    """16 candidates, the target, its subject, the grey frame and the condition; four prompts."""
    both = opened(False)
    encode, seen = both.codec.encode, []
    monkeypatch.setattr(both.codec, "encode", lambda video: (seen.append(video.shape[2]), encode(video))[1])
    asked, rows = [], both.text.encode
    monkeypatch.setattr(both.text, "encode", lambda prompts: (asked.extend(prompts), rows(prompts))[1])
    both.encoded(0)
    _, drawn = both.run.feed.drawn(0)
    assert seen.count(1) == len(drawn.candidates) + 2
    assert seen.count(17) == 2
    assert len(asked) == 4


def test_a_peer_that_differs_is_noticed(opened):
    both = opened(False)
    with torch.no_grad():
        both.plain.weights["proj_out.bias"].add_(0.5)
    with pytest.raises(AssertionError, match="differ by"):
        train_step.check(both)


def test_rows_say_whether_a_goal_is_met():
    assert train_step.line("transformer alone", 0.1, 0.2, 2.0).endswith("| 2.00 | met (>= 1.5) |")
    assert train_step.line("transformer alone", 0.1, 0.12, 1.2).endswith("| 1.20 | missed (>= 1.5) |")
    assert train_step.line("other", 0.1, 0.2, 2.0).endswith("| 2.00 |  |")


def test_a_full_size_step_runs_at_any_size():
    config = train_full.settings(2, TINY)
    config = replace(
        config,
        grid=FrameGrid(num_frames=9, height=32, width=48),
        scale=replace(config.scale, compile=False),
    )
    found = train_full.measure(config, "cpu", repeat=1)
    assert found.seconds > 0
    assert found.flops > 0
    assert found.estimated > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_claimed():
    with pytest.raises(SystemExit, match="not measured"):
        train_full.full_report(1, 1)
