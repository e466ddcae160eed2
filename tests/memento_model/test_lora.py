"""LoRA: against the official merged numbers, exact way back, the 824 tensors at full size."""

from __future__ import annotations

import json

import pytest

from tests.memento_model.golden import BLEND, NAMES, golden, torch
from tests.support import SHARED

pytest.importorskip("peft")

from curation.cpu_linear import plain_products
from memento_model.config import Compat, ModelConfig
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.lora import (
    drop_adapters,
    inject_lora,
    lora_factor,
    lora_layers,
    merge_lora,
    trainable_tensors,
    unmerge_lora,
)
from memento_model.nn.transformer import MementoTransformer


@pytest.fixture(scope="module", params=NAMES)
def numbers(request):
    return golden(request.param)


def adapted(numbers):
    """The official base with the official adapters."""
    model = numbers.transformer()
    inject_lora(model, numbers.model_config(), BLEND)
    tensors = trainable_tensors(model, None)
    official = {name: value for name, value in numbers.trainable.items() if ".lora_" in name}
    assert tensors.keys() == official.keys()
    with torch.no_grad():
        for name, parameter in tensors.items():
            parameter.copy_(official[name])
    return model


def lora_case(numbers):
    case = numbers.config["forward_cases"][-1]
    assert case["weights"] == "base+lora"
    return case


@torch.no_grad()
def test_adapters_and_merged_weights_equal_the_reference(numbers):
    case, model = lora_case(numbers), adapted(numbers)
    inputs, wanted = numbers.inputs(case), numbers.forward[case["output"]]
    apart = model(**inputs)[0]
    assert (apart - wanted).abs().max() <= 1e-4
    base = {name: layer.get_base_layer().weight.clone() for name, layer in lora_layers(model).items()}
    kept = merge_lora(model)
    merged = model(**inputs)[0]
    assert (merged - wanted).abs().max() <= 1e-4
    assert (merged - apart).abs().max() <= 1e-5
    unmerge_lora(model, kept)
    for name, layer in lora_layers(model).items():
        assert torch.equal(layer.get_base_layer().weight, base[name])
    assert torch.equal(model(**inputs)[0], apart)


@torch.no_grad()
def test_way_back_is_exact_in_bf16(numbers):
    model = adapted(numbers).cast(torch.bfloat16)
    assert {parameter.dtype for parameter in trainable_tensors(model, None).values()} == {torch.float32}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = merge_lora(model)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == len(lora_layers(model))
    unmerge_lora(model, kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_dropping_adapters_leaves_plain_layers_with_the_merged_weights(numbers):
    case, model = lora_case(numbers), adapted(numbers)
    merge_lora(model, keep_originals=False)
    drop_adapters(model)
    assert not lora_layers(model)
    assert model.state_dict().keys() == numbers.transformer().state_dict().keys()
    out = model(**numbers.inputs(case))[0]
    assert (out - numbers.forward[case["output"]]).abs().max() <= 1e-4


def test_factor_is_rank_stabilised_unless_asked_otherwise():
    config = ModelConfig()
    assert lora_factor(config, Compat()) == pytest.approx(11.3137085)
    assert lora_factor(config, Compat(lora_scale="plain")) == 1.0
    for compat in (Compat(), Compat(lora_scale="plain")):
        small = ModelConfig(width=48, num_heads=2, num_layers=1, ffn_width=64, lora_rank=4, lora_alpha=6)
        model = MementoTransformer.from_config(small)
        inject_lora(model, small, compat)
        scales = {layer.scaling["default"] for layer in lora_layers(model).values()}
        assert scales == {lora_factor(small, compat)}


def test_only_adapters_are_trainable_and_start_as_nothing(numbers):
    model, case = numbers.transformer(), numbers.config["forward_cases"][0]
    with torch.no_grad():
        fast = model(**numbers.inputs(case))
        with plain_products():
            before = model(**numbers.inputs(case))
            inject_lora(model, numbers.model_config(), BLEND)
            assert torch.equal(model(**numbers.inputs(case)), before)
        # An activation may be in the same call as a plain layer, but not as an adapted one: rounding differs.
        torch.testing.assert_close(model(**numbers.inputs(case)), fast, rtol=1e-5, atol=1e-5)
    assert not any(tensor.any() for name, tensor in model.named_parameters() if ".lora_B." in name)
    tensors = list(trainable_tensors(model, None).values())
    assert len(tensors) == 2 * 10 * numbers.model_config().num_layers
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in trainable} == {id(parameter) for parameter in tensors}


def full_size():
    config = ModelConfig()
    with torch.device("meta"):
        model, query = MementoTransformer.from_config(config), KeyframeQuery(config)
        inject_lora(model, config, Compat())
    return trainable_tensors(model, query)


def test_full_size_census():
    tensors = full_size()
    sizes = {
        kind: [t.numel() for name, t in tensors.items() if name.startswith("keyframe_query.") == kind]
        for kind in (False, True)
    }
    assert [(len(values), sum(values)) for values in sizes.values()] == [
        (800, 613_416_960),
        (24, 210_170_880),
    ]


def test_full_size_names_and_shapes_are_the_official_ones():
    path = SHARED / "specs/memento_trainable_tensors.json"
    if not path.exists():
        pytest.skip("list of the official tensors not present")
    official = json.loads(path.read_text())
    prefix = "low_noise_model.base_model.model."
    assert {prefix + name: list(tensor.shape) for name, tensor in full_size().items()} == official


def test_misuse_is_refused_in_one_line(numbers):
    config = numbers.model_config()
    plain = numbers.transformer()
    with pytest.raises(ValueError, match="no LoRA adapters"):
        merge_lora(plain)
    with pytest.raises(ValueError, match="no LoRA of rank 0"):
        inject_lora(plain, ModelConfig(lora_rank=0), BLEND)
    model = adapted(numbers)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        inject_lora(model, config, BLEND)
    kept = merge_lora(model, keep_originals=False)
    with pytest.raises(ValueError, match="merged already"):
        merge_lora(model)
    with pytest.raises(ValueError, match="were not kept"):
        unmerge_lora(model, kept)
