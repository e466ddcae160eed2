"""Rotary positions: against complex arithmetic in float64, relative, clamped, equal in both code paths."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from memento_model.config import rope_split
from memento_model.nn.rope import rotary_table, rotate

SPLIT = (12, 10, 10)


def table(positions, rows=2, columns=3, split=SPLIT):
    return rotary_table(torch.tensor([positions]), rows, columns, split)


def test_equals_complex_arithmetic_in_float64():
    torch.manual_seed(0)
    positions, rows, columns = [-512, -37, 0, 5], 3, 4
    x = torch.randn(1, len(positions) * rows * columns, 2, 32, dtype=torch.float64)
    wanted = x.clone()
    for index in range(x.shape[1]):
        frame, rest = divmod(index, rows * columns)
        offset = 0
        for channels, position in zip(SPLIT, (positions[frame], *divmod(rest, columns)), strict=True):
            for pair in range(channels // 2):
                angle = torch.tensor(position * 10000.0 ** (-2 * pair / channels), dtype=torch.float64)
                at = offset + 2 * pair
                turned = torch.view_as_complex(x[0, index, :, at : at + 2].contiguous())
                turned = turned * torch.polar(torch.ones_like(angle), angle)
                wanted[0, index, :, at : at + 2] = torch.view_as_real(turned)
            offset += channels
    found = rotate(x.float(), table(positions, rows, columns))
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() < 2e-6


def test_far_positions_are_as_exact_as_near_ones():
    """fp32 arithmetic on angles would be off by 3e-5 at -512."""
    exact = torch.tensor(-512.0, dtype=torch.float64).cos().item()
    assert abs(table([-512])[0, 0, 0, 0, 0].item() - exact) < 4e-8


def test_only_differences_of_positions_matter():
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 6, 2, 32)
    scores = [
        torch.einsum("blhd,bmhd->bhlm", rotate(q, table([first])), rotate(k, table([second])))
        for first, second in ((3, -20), (-200, -223))
    ]
    assert (scores[0] - scores[1]).abs().max() < 2e-5


def test_positions_are_clamped_to_the_trained_table():
    assert torch.equal(table([-9000, -513, 4000]), table([-512, -512, 511]))
    assert not torch.equal(table([-512]), table([-511]))


def test_samples_of_a_batch_have_their_own_times():
    both = rotary_table(torch.tensor([[0, 1], [-7, 4]]), 2, 3, SPLIT)
    assert torch.equal(both[:1], table([0, 1]))
    assert torch.equal(both[1:], table([-7, 4]))


def test_split_of_the_full_size_head():
    assert rope_split(128) == (44, 42, 42)
    assert rope_split(32) == SPLIT


def test_table_made_in_inference_serves_training():
    with torch.inference_mode():
        rotary_table(torch.tensor([[0]]), 11, 13, SPLIT)
    x = torch.randn(1, 11 * 13, 1, 32, requires_grad=True)
    rotate(x, rotary_table(torch.tensor([[0]]), 11, 13, SPLIT)).square().sum().backward()
    assert (x.grad - 2 * x).abs().max() < 1e-5  # a rotation keeps lengths


def test_compiled_form_equals_the_eager_one(monkeypatch):
    torch.manual_seed(2)
    x, turns = torch.randn(2, 12, 2, 32), rotary_table(torch.tensor([[-3, 8]] * 2), 2, 3, SPLIT)
    eager = rotate(x, turns)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert (rotate(x, turns) - eager).abs().max() < 1e-6
