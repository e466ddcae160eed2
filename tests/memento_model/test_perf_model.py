"""The peers of the benchmark compute what our models compute, and its parts run at any size."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.config import Layout, ModelConfig
from perf.model import Size, agree, make_inputs, make_query, make_transformer, peak_bytes, weights_of
from perf.model_block import FULL, GRID, LAYOUT, block_flops, measurements
from perf.model_plain import CHOICES, PlainQuery, PlainTransformer

TINY = Size(
    ModelConfig(width=48, num_heads=2, num_layers=2, ffn_width=64, freq_dim=16, text_dim=24, text_len=12),
    Layout(identity_frames=1, memory_frames=2, target_frames=3),
    (4, 6),
)


@pytest.mark.parametrize("left_out", [None, *sorted(CHOICES)])
@torch.no_grad()
def test_the_plain_transformer_agrees(left_out):
    model, inputs = make_transformer(TINY), make_inputs(TINY)
    peer = PlainTransformer(weights_of(model), TINY.config, CHOICES - {left_out})
    assert agree(model(**inputs), peer(**inputs)) < 1e-5


@torch.no_grad()
def test_the_plain_queries_agree():
    query = make_query(TINY)
    candidates, contexts = torch.randn(2, 16, 9, 4, 6), torch.randn(2, 2, 12, 48)
    positions = torch.arange(-27, 0, 3).repeat(2, 1)
    ours = query(candidates, positions, *contexts).scores_bqf
    assert agree(ours, PlainQuery(weights_of(query), TINY.config)(candidates, positions, *contexts)) < 1e-5


@pytest.mark.filterwarnings("ignore")  # the profiler's own
def test_peak_memory_is_the_largest_sum():
    def call():
        first = torch.ones(1024, 1024)
        second = torch.ones(1024, 1024)
        del first
        return second[:1].clone(), torch.ones(512, 1024)

    assert 8 * 2**20 <= peak_bytes(call) <= 8.1 * 2**20


def test_operations_of_the_full_size_are_those_of_the_specification():
    linear, attention = block_flops(FULL, LAYOUT, GRID[0] * GRID[1])
    assert 40 * linear == pytest.approx(1.12e15, rel=0.01)
    assert 40 * attention == pytest.approx(1.84e15, rel=0.02)


def test_block_measurements_run_anywhere():
    config = replace(TINY.config, num_layers=1, lora_rank=4)
    found = measurements(config, TINY.layout, (2, 3), "cpu", repeat=1, compiled=False)
    assert set(found) == {
        "plain forward", "forward, residual fp32", "forward, residual bf16", "training, residual bf16",
    }  # fmt: skip
    assert all(one.seconds > 0 for one in found.values())
