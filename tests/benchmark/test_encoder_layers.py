"""The towers' layers give PyTorch's numbers, and PyTorch's own are used where they should be."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("timm")

from torch import nn

from benchmark.encoders import clip, dinov2, layers, tensors, viclip
from curation import cpu_linear

WIDTH = 192


@pytest.fixture
def products(monkeypatch):
    """Counts oneDNN's products, on processors where PyTorch's are good, too."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    calls, product = [], cpu_linear._product
    monkeypatch.setattr(cpu_linear, "faster_here", lambda: True)
    monkeypatch.setattr(cpu_linear, "_product", lambda *given: calls.append(1) or product(*given))
    return calls


def attention(**options):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.MultiheadAttention(WIDTH, 3, **{"batch_first": True, **options}).eval()


def tokens(seed=1):
    return torch.randn(4, 50, WIDTH, generator=torch.Generator().manual_seed(seed))


def both(module, *given, **options):
    """(PyTorch's, ours) of one call in inference."""
    with torch.inference_mode():
        plain = module(*given, **options)
        assert layers.speed_up(module) is module
        assert type(module) is layers.SelfAttention
        return plain, module(*given, **options)


def test_self_attention_is_pytorchs(products):
    x, module = tokens(), attention()
    names = list(module.state_dict())
    (plain, _), (ours, weights) = both(module, x, x, x, need_weights=False)
    assert len(products) == 2
    assert weights is None
    assert list(module.state_dict()) == names
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "options"),
    [
        ({}, {}),
        ({}, {"need_weights": False, "attn_mask": torch.ones(50, 50).triu(1).bool()}),
        ({}, {"need_weights": False, "key_padding_mask": torch.arange(50).expand(4, 50) > 30}),
        ({"batch_first": False}, {"need_weights": False}),
        ({"add_bias_kv": True}, {"need_weights": False}),
        ({"add_zero_attn": True}, {"need_weights": False}),
    ],
    ids=["weights", "mask", "padding", "batch second", "bias", "zero"],
)
def test_other_attention_is_left_to_pytorch(products, made, options):
    x = tokens()
    plain, ours = both(attention(**made), x, x, x, **options)
    assert not products
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)


def test_attention_to_something_else_is_left_to_pytorch(products):
    (plain, _), (ours, _) = both(attention(), tokens(), tokens(2), tokens(2), need_weights=False)
    assert not products
    assert torch.equal(ours, plain)


def test_plain_products_bring_back_pytorchs(products):
    x, module = tokens(), attention()
    with cpu_linear.plain_products():
        (plain, _), (ours, _) = both(module, x, x, x, need_weights=False)
    assert not products
    assert torch.equal(ours, plain)


def test_quick_gelu():
    values = tokens()
    before = values.clone()
    expected = values * torch.sigmoid(1.702 * values)
    assert torch.equal(layers.quick_gelu(values), expected)
    assert torch.equal(layers.QuickGelu()(values), expected)
    assert torch.equal(values, before), "what was given has changed"


def test_quick_gelu_can_be_trained_through():
    values = torch.randn(3, 5).requires_grad_()
    (slope,) = torch.autograd.grad(layers.quick_gelu(values).sum(), values)
    (wanted,) = torch.autograd.grad((values * torch.sigmoid(1.702 * values)).sum(), values)
    torch.testing.assert_close(slope, wanted)


TOWERS = {
    "clip": (
        lambda: clip.Clip(clip.Shape(size=64, patch=16, width=WIDTH, layers=2, heads=3, features=64)),
        (8, 3, 64, 64),
        2 * 4,
    ),
    "dinov2": (
        lambda: dinov2.Dinov2(dinov2.Shape(size=70, width=WIDTH, layers=2, heads=3)),
        (8, 3, 70, 70),
        2 * 4,
    ),
    "viclip": (
        lambda: viclip.VisionTower(
            viclip.Shape(
                size=64, patch=16, width=WIDTH, layers=2, heads=3, features=64, text_width=64, text_heads=1
            )
        ),
        (2, 8, 3, 64, 64),
        2 * 4,
    ),
}


@pytest.mark.parametrize("name", TOWERS)
def test_towers_use_it_for_all_products_of_their_blocks(products, name):
    build, shape, expected = TOWERS[name]
    tower = tensors.made_up(build, 3)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        ours = tower(images)
        assert len(products) == expected
        with cpu_linear.plain_products():
            plain = tower(images)
        assert len(products) == expected
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_features_do_not_depend_on_threads_or_places_in_a_batch(products, name):
    build, shape, _ = TOWERS[name]
    tower = tensors.made_up(build, 3)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with torch.inference_mode():
            one = tower(images)
            torch.set_num_threads(2)
            assert torch.equal(tower(images), one)
            assert torch.equal(tower(images.flip(0)).flip(0), one)
    finally:
        torch.set_num_threads(threads)
    assert products
