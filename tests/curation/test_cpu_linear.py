"""oneDNN's linear layers give PyTorch's numbers and gradients, and are used only where they should be."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import nn

from curation import cpu_linear

FORMS = [(210, 192), (3, 70, 192), (2, 3, 40, 192)]


@pytest.fixture
def used(monkeypatch):
    """Counts oneDNN's products, on processors where PyTorch's are good, too."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    calls, product = [], cpu_linear._product

    def seen(x, weight, bias):
        assert weight.is_contiguous() or weight.t().is_contiguous(), (
            "oneDNN would take a thousand times as long"
        )
        calls.append(1)
        return product(x, weight, bias)

    monkeypatch.setattr(cpu_linear, "faster_here", lambda: True)
    monkeypatch.setattr(cpu_linear, "_product", seen)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is worth it depends on them
    yield calls
    torch.set_num_threads(threads)


def made(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", FORMS, ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_are_pytorchs(used, shape, with_bias):
    x, weight, bias = made(*shape), made(320, 192, seed=1), made(320, seed=2) if with_bias else None
    got = cpu_linear.linear(x, weight, bias)
    assert used
    assert got.shape == (*shape[:-1], 320)
    torch.testing.assert_close(got, F.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def test_strided_inputs(used):
    x, weight = made(4, 300, 192)[:, 50:250].transpose(0, 1), made(192, 256, seed=1).T
    torch.testing.assert_close(cpu_linear.linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-4)
    assert used


def test_gradients_of_strided_inputs(used):
    x, weight = made(210, 576)[:, 192:384].requires_grad_(), made(320, 192, seed=1).requires_grad_()
    ours, plain = (
        torch.autograd.grad(product(x, weight).sum(), (x, weight))
        for product in (cpu_linear.linear, F.linear)
    )
    assert len(used) == 3
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", FORMS, ids=str)
@pytest.mark.parametrize("trained", ["xwb", "x", "w", "b", "xw", "wb"])
def test_gradients_are_pytorchs(used, shape, trained):
    given = {"x": made(*shape), "w": made(320, 192, seed=1), "b": made(320, seed=2)}
    wanted = [given[name].requires_grad_() for name in trained]
    slope = made(*shape[:-1], 320, seed=3)
    ours = torch.autograd.grad(cpu_linear.linear(*given.values()), wanted, slope)
    products = len(used)
    plain = torch.autograd.grad(F.linear(*given.values()), wanted, slope)
    assert products == 1 + ("x" in trained) + ("w" in trained), "a product too many or too few"
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_a_second_derivative_is_refused_not_wrong(used):
    x = made(210, 192).requires_grad_()
    (slope,) = torch.autograd.grad(cpu_linear.linear(x, made(320, 192)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.sum().backward()


def test_a_frozen_layer_keeps_no_input(used):
    x = made(210, 192).requires_grad_() * 1
    out = cpu_linear.linear(x, made(320, 192, seed=1), made(320, seed=2))
    x.add_(1)  # an error if the gradient needed it
    out.sum().backward()
    assert len(used) == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch.func's own use of it
def test_forward_derivatives_are_pytorchs(used):
    x, direction, weight = made(210, 192), made(210, 192, seed=3), made(320, 192, seed=1)
    _, slope = torch.func.jvp(lambda given: cpu_linear.linear(given, weight), (x,), (direction,))
    torch.testing.assert_close(slope, F.linear(direction, weight))
    each = torch.func.vmap(lambda row: cpu_linear.linear(row, weight))(x.view(2, 105, 192))
    torch.testing.assert_close(each.flatten(0, 1), F.linear(x, weight), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("train", [False, True])
def test_gelu_in_the_same_call(used, train):
    model = cpu_linear.speed_up(nn.Sequential(nn.Linear(192, 576)))
    x = made(210, 192)
    with torch.set_grad_enabled(train):
        got = cpu_linear.gelu_linear(model[0], x)
    wanted = F.gelu(F.linear(x, model[0].weight, model[0].bias), approximate="tanh")
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert got.requires_grad == train


def test_gelu_leaves_hooks_alone_and_trains_a_bias(used):
    layer, x = cpu_linear.speed_up(nn.Sequential(nn.Linear(192, 576)))[0], made(210, 192)
    layer.weight.requires_grad_(False)
    cpu_linear.gelu_linear(layer, x).sum().backward()
    assert layer.bias.grad is not None
    seen = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        cpu_linear.gelu_linear(layer, x)
    assert seen


def test_a_model_keeps_names_and_types_of_other_layers(used):
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict({"a": nn.Linear(192, 192), "b": Own(192, 192), "c": nn.Conv1d(1, 1, 1)})
    names = list(model.state_dict())
    assert cpu_linear.speed_up(model) is model
    assert [type(module) for module in model.values()] == [cpu_linear.CpuLinear, Own, nn.Conv1d]
    assert list(model.state_dict()) == names
    assert isinstance(model["a"], nn.Linear)
    model["a"](made(210, 192))
    assert used


@pytest.mark.filterwarnings("ignore:TF32")  # told by the switch of oneDNN
def test_left_to_pytorch(used):
    x, weight = made(210, 192), made(320, 192, seed=1)
    cpu_linear.linear(x[:10], weight)  # too small
    cpu_linear.linear(x.double(), weight.double())
    cpu_linear.linear(x.bfloat16(), weight.bfloat16())
    cpu_linear.linear(x, made(320, 400, seed=1)[:, 100:292])  # a part of a weight's columns
    cpu_linear.linear(x, weight, made(640)[::2])  # strides of a bias would not be looked at
    cpu_linear.linear(x, weight, made(1))
    cpu_linear.linear(made(192 * 400), made(320, 192 * 400))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        cpu_linear.linear(x, weight.T)
    with torch.backends.mkldnn.flags(enabled=False):
        cpu_linear.linear(x, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cpu_linear.linear(x, weight).dtype is torch.bfloat16
    with cpu_linear.plain_products():
        cpu_linear.linear(x, weight)
    with torch.device("meta"):
        cpu_linear.linear(torch.empty(210, 192), torch.empty(320, 192))
    assert not used
    cpu_linear.linear(x, weight)
    assert used
    used.clear()
    torch.set_num_threads(8)
    cpu_linear.linear(x, weight)  # too small for so many
    assert not used


@pytest.mark.parametrize(
    ("maker", "capability", "works", "expected"),
    [
        ("AuthenticAMD", "AVX512", True, True),
        ("GenuineIntel", "AVX512", True, False),
        ("AuthenticAMD", "AVX2", True, False),
        ("AuthenticAMD", "AVX512", False, False),
    ],
)
def test_where_it_is_faster(monkeypatch, maker, capability, works, expected):
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        pytest.skip("this PyTorch has no MKL to be better than")

    def broken(*_):
        raise AttributeError("no such operator")

    monkeypatch.setattr(cpu_linear, "_maker", lambda: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    if not works:
        monkeypatch.setattr(cpu_linear, "_product", broken)
    assert cpu_linear._tried.__wrapped__() == expected


@pytest.mark.parametrize("around", ["meta", "autocast", "inference", "double"])
def test_the_trial_is_the_same_wherever_it_happens(around):
    contexts = {
        "meta": torch.device("meta"),
        "autocast": torch.autocast("cpu", dtype=torch.bfloat16),
        "inference": torch.inference_mode(),
    }
    trial, outside = cpu_linear._tried.__wrapped__, cpu_linear._tried.__wrapped__()
    if around == "double":
        torch.set_default_dtype(torch.float64)
        try:
            assert trial() == outside
        finally:
            torch.set_default_dtype(torch.float32)
    else:
        with contexts[around]:
            assert trial() == outside


def test_fake_tensors_decide_nothing():
    from torch._subclasses.fake_tensor import FakeTensorMode

    cpu_linear._tried.cache_clear()
    outside = cpu_linear._tried.__wrapped__()
    with FakeTensorMode():
        assert not cpu_linear.faster_here()
    assert cpu_linear.faster_here() == outside


def test_the_maker_is_read_from_the_system():
    assert cpu_linear._maker().strip() == cpu_linear._maker() != ""
