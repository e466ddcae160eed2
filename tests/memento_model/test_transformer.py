"""The transformer against the official numbers, and what must hold for any input."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.memento_model.golden import BLEND, NAMES, golden, torch

from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry  # isort: skip
from memento_model.nn.attention import plan_tokens  # isort: skip
from memento_model.config import Compat, Layout, ModelConfig  # isort: skip
from memento_model.checkpoints.names import to_native  # isort: skip
from memento_model.nn.transformer import FP32_MODULES, MementoTransformer, initialise, pad_text  # isort: skip

CASES = (
    "identity_memory_split", "identity_memory_joint", "memory_joint", "memory_split_blend",
    "storymem_offsets", "plain", "plain_t2v", "two_identities_split",
)  # fmt: skip
LORA_CASE = "lora_identity_memory_split"  # test_lora.py


@pytest.fixture(scope="module", params=NAMES)
def numbers(request):
    return golden(request.param)


@pytest.fixture(scope="module")
def tiny():
    """A model with random weights that does not start at zero output, and inputs for two samples."""
    config = ModelConfig(
        width=48, num_heads=2, num_layers=2, ffn_width=64, freq_dim=32, text_dim=24, text_len=8, lora_rank=0
    )
    torch.manual_seed(5)
    model = MementoTransformer.from_config(config)
    inputs = {
        "latents_bcfhw": torch.randn(2, 36, 6, 4, 6),
        "timestep_b": torch.tensor([937.0, 208.25]),
        "text_bld": [torch.randn(5, 24), torch.randn(8, 24)],
        "positions_bf": torch.tensor([[-512, -9, -40, 0, 1, 2], [-512, -100, -3, 0, 1, 2]]),
        "layout": Layout(identity_frames=1, memory_frames=2, target_frames=3),
        "identity_text": [[torch.randn(2, 24), torch.randn(4, 24)]],
    }
    return model, inputs


def case_named(numbers, name):
    return next(case for case in numbers.config["forward_cases"] if case["name"] == name)


def test_every_official_case_is_tested(numbers):
    assert {case["name"] for case in numbers.config["forward_cases"]} == {*CASES, LORA_CASE}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_forward_equals_the_reference(numbers, name):
    case = case_named(numbers, name)
    out = numbers.transformer(case.get("in_channels", 36))(**numbers.inputs(case))
    assert (out[0] - numbers.forward[case["output"]]).abs().max() <= 1e-4


@torch.no_grad()
def test_intermediates_equal_the_reference(numbers):
    wanted, model = numbers.forward, numbers.transformer()
    inputs = numbers.inputs(numbers.config["forward_cases"][0])
    seen = {}

    def keep(name):
        return lambda module, args, out: seen.update({name: out})

    model.patch_embedding.register_forward_hook(keep("patch"))
    model.blocks[0].register_forward_hook(keep("case1.block0_out"))
    model.blocks[0].attn1.register_forward_hook(keep("case1.block0_self_attn"))
    model.blocks[0].attn2.register_forward_hook(keep("case1.block0_cross_attn"))
    model(**inputs)
    seen["case1.patch_tokens"] = seen.pop("patch").flatten(2).transpose(1, 2)
    time_bd, six_b6d = model.embed_time(inputs["timestep_b"])
    seen |= {"case1.time_embedding": time_bd, "case1.time_projection": six_b6d.flatten(1)}
    seen["case1.text_embedded"] = model.embed_text(inputs["text_bld"])
    assert set(seen) == {name for name in wanted if name.startswith("case1.")}
    for name, found in seen.items():
        assert (found[0] - wanted[name]).abs().max() <= 1e-4, name


@torch.no_grad()
def test_split_without_identity_is_joint_unless_blending_is_asked_for(numbers):
    case = case_named(numbers, "memory_split_blend")
    inputs = numbers.inputs(case)
    joint = numbers.transformer(compat=Compat())(**inputs)[0]
    blend = numbers.forward[case["output"]]
    assert (joint - blend).abs().max() > 0.1
    assert torch.equal(joint, numbers.transformer(compat=BLEND)(**{**inputs, "attention": "joint"})[0])


@torch.no_grad()
def test_residual_in_bf16_and_weights_in_bf16_stay_near_the_reference(numbers):
    case = numbers.config["forward_cases"][0]
    wanted = numbers.forward[case["output"]]
    for residual in ("fp32", "bf16"):
        model = numbers.transformer(compat=Compat(residual=residual)).cast(torch.bfloat16)
        out = model(**numbers.inputs(case))[0]
        assert out.dtype == torch.float32
        assert (out - wanted).norm() / wanted.norm() < 0.02, residual


def test_gradients_in_bf16_stay_near_fp32(numbers):
    case = numbers.config["forward_cases"][0]
    inputs = numbers.inputs(case)
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        model = numbers.transformer().cast(dtype)
        inputs["latents_bcfhw"] = inputs["latents_bcfhw"].detach().requires_grad_()
        model(**inputs).square().mean().backward()
        grads.append(inputs["latents_bcfhw"].grad)
    assert (grads[1] - grads[0]).norm() / grads[0].norm() < 0.02


@torch.no_grad()
def test_order_of_memory_frames_is_irrelevant(numbers):
    case = numbers.config["forward_cases"][0]
    inputs, model = numbers.inputs(case), numbers.transformer()
    wanted = model(**inputs)
    order = torch.tensor([0, *(1 + torch.randperm(8, generator=torch.Generator().manual_seed(0))).tolist()])
    order = torch.cat((order, torch.arange(9, wanted.shape[2])))
    assert order[1:9].tolist() != list(range(1, 9))
    inputs["latents_bcfhw"] = inputs["latents_bcfhw"][:, :, order]
    inputs["positions_bf"] = inputs["positions_bf"][:, order]
    assert (model(**inputs) - wanted[:, :, order]).abs().max() < 1e-5


@torch.no_grad()
def test_a_batch_equals_its_samples_alone(tiny):
    model, inputs = tiny
    whole = model(**inputs)
    for index in range(2):
        one = slice(index, index + 1)
        alone = {
            name: inputs[name][one] for name in ("latents_bcfhw", "timestep_b", "text_bld", "positions_bf")
        }
        alone["identity_text"] = [inputs["identity_text"][0][one]]
        assert (model(**alone, layout=inputs["layout"]) - whole[one]).abs().max() < 1e-5


@torch.no_grad()
def test_identity_reaches_the_target_only_through_memory(tiny):
    model, inputs = tiny
    changed = dict(inputs, latents_bcfhw=inputs["latents_bcfhw"].clone())
    changed["latents_bcfhw"][:, :, 0] += 1
    layout = inputs["layout"]
    assert (model(**inputs) - model(**changed))[:, :, layout.target].abs().max() > 1e-4
    depth, model.blocks = model.blocks, model.blocks[:1]
    try:
        difference = (model(**inputs) - model(**changed)).abs().amax(dim=(0, 1, 3, 4))
    finally:
        model.blocks = depth
    assert (difference[layout.target] == 0).all()
    assert (difference[: layout.target.start] > 1e-4).all()


@torch.no_grad()
def test_one_identity_caption_serves_all_identity_frames(tiny):
    model, inputs = tiny
    inputs = {**inputs, "layout": Layout(identity_frames=2, memory_frames=1, target_frames=3)}
    inputs["identity_text"] = inputs["identity_text"] * 2
    wanted = model(**inputs)
    inputs["identity_text"] = inputs["identity_text"][:1]
    assert (model(**inputs) - wanted).abs().max() < 1e-6
    padded = torch.stack([pad_text(caption, 8) for caption in inputs["identity_text"]], dim=1)
    assert (model(**{**inputs, "identity_text": padded}) - wanted).abs().max() < 1e-6
    without = model(**{**inputs, "identity_text": None})
    assert (without - wanted).abs().max() > 1e-4


def test_gradient_checkpointing_changes_nothing(tiny):
    model, inputs = tiny
    grads = []
    for checkpointed in (False, True):
        model.zero_grad()
        (model.enable_gradient_checkpointing if checkpointed else model.disable_gradient_checkpointing)()
        model(**inputs).square().mean().backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    model.disable_gradient_checkpointing()
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@torch.no_grad()
def test_autocast_leaves_the_time_path_alone(tiny):
    model, inputs = tiny
    wanted, exact = model(**inputs), model.embed_time(inputs["timestep_b"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(
            torch.equal(a, b) for a, b in zip(model.embed_time(inputs["timestep_b"]), exact, strict=True)
        )
        out = model(**inputs)
    assert 0 < (out - wanted).norm() / wanted.norm() < 0.02


@pytest.mark.parametrize("backend", ["native", "_native_math"])
@torch.no_grad()
def test_attention_backends_are_selectable(tiny, backend, monkeypatch):
    model, inputs = tiny
    wanted = model(**inputs)
    used = []
    functions = {AttentionBackendName(backend): lambda **given: used.append(1) or given["query"]}
    before, _ = _AttentionBackendRegistry.get_active_backend()
    model.set_attention_backend(backend)
    try:
        assert (model(**inputs) - wanted).abs().max() < 1e-5
        monkeypatch.setattr(_AttentionBackendRegistry, "_backends", functions)
        model(**inputs)
    finally:
        model.reset_attention_backend()
        _AttentionBackendRegistry.set_active_backend(before)  # diffusers changes that of the whole process
    assert len(used) == 2 * (2 + 2)  # per block: two groups, two captions


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own code
def test_blocks_compile_without_a_break_and_equal_eager_ones(tiny, compiler):
    model, inputs = tiny
    twin = copy.deepcopy(model)
    twin.compile_repeated_blocks(fullgraph=True, backend=compiler)
    outs = [each(**inputs) for each in (model, twin)]
    assert (outs[1] - outs[0]).abs().max() < 1e-5
    grads = [
        torch.autograd.grad(out.square().sum(), list(each.parameters()), allow_unused=True)
        for out, each in zip(outs, (model, twin), strict=True)
    ]
    for one, other in zip(*grads, strict=True):
        assert (one - other).norm() <= 1e-4 * one.norm() + 1e-6


def test_full_size_census():
    with torch.device("meta"):
        model = MementoTransformer.from_config(ModelConfig())
        plain = MementoTransformer.from_config(ModelConfig(in_channels=16))
    names = {to_native(name): parameter for name, parameter in model.named_parameters()}
    assert sum(parameter.numel() for parameter in names.values()) == 14_288_901_184
    assert len(names) == 1095
    assert sum(parameter.numel() for parameter in plain.parameters()) == 14_288_491_584
    assert model.blocks[39].attn1.to_q.weight.shape == (5120, 5120)


def test_saved_folder_loads_with_diffusers_own_loader(tiny, tmp_path):
    model, inputs = tiny
    model.save_pretrained(tmp_path)
    again = MementoTransformer.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert again.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    for name, parameter in again.named_parameters():
        if any(part in name.split(".") for part in FP32_MODULES):
            assert parameter.dtype == torch.float32, name
    assert again.text_len == 8
    with torch.no_grad():
        wanted = model(**inputs)
        assert (again(**inputs) - wanted).norm() / wanted.norm() < 0.02


def test_initialise_is_the_same_everywhere_and_starts_at_zero_output(tiny):
    model, inputs = tiny
    fresh = [MementoTransformer.from_config(model.config) for _ in range(2)]
    for twin in fresh:
        initialise(twin, seed=3)
    pairs = zip(fresh[0].parameters(), fresh[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with torch.no_grad():
        assert fresh[0](**inputs).abs().max() == 0
    assert (fresh[0].blocks[0].attn1.norm_q.weight == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents_bcfhw": torch.zeros(2, 16, 6, 4, 6)}, r"\[b, 36, f, h, w\], got \[2, 16"),
        ({"latents_bcfhw": torch.zeros(2, 36, 6, 5, 6)}, "no multiple of the patch"),
        ({"latents_bcfhw": torch.zeros(2, 36, 7, 4, 6)}, "7 frames, the layout 6"),
        ({"timestep_b": torch.zeros(1)}, "one per sample"),
        ({"positions_bf": torch.zeros(2, 6)}, "must be integers"),
        ({"text_bld": torch.zeros(2, 9, 24)}, "up to 8"),
        ({"identity_text": [torch.zeros(2, 3, 24)] * 2}, "2 identity captions for 1 identity frames"),
        ({"identity_text": torch.zeros(2, 3, 24)}, r"\[b, n, t, d\]"),
    ],
)
def test_wrong_shapes_are_refused_in_one_line(tiny, change, message):
    model, inputs = tiny
    with pytest.raises(ValueError, match=message):
        model(**{**inputs, **change})


def test_layouts_without_a_shot_are_refused():
    with pytest.raises(ValueError, match="at least one target frame"):
        Layout(memory_frames=2, target_frames=0)


class Holder:
    """One of several threads that share a sequence: Ulysses' exchange through a common list."""

    def __init__(self, rank, cuts, slots, barrier):
        self.rank, self.cuts, self.slots, self.barrier = rank, cuts, slots, barrier

    def span(self, num_tokens):
        return self.cuts[self.rank], self.cuts[self.rank + 1]

    def exchange(self, mine):
        self.slots[self.rank] = mine
        self.barrier.wait()
        everyone = list(self.slots)
        self.barrier.wait()
        return everyone

    def attend(self, q, k, v, inner, num_tokens):
        share = q.shape[2] // len(self.slots)
        heads = slice(self.rank * share, (self.rank + 1) * share)
        whole = (
            torch.cat(parts, dim=1)[:, :, heads] for parts in zip(*self.exchange((q, k, v)), strict=True)
        )
        own = slice(*self.span(0))
        return torch.cat(self.exchange(inner(*whole)), dim=2)[:, own]

    def gather(self, own, num_tokens):
        return torch.cat(self.exchange(own), dim=1)


def test_plan_of_a_part_keeps_the_ranges_and_cuts_the_captions():
    layout = Layout(identity_frames=2, memory_frames=1, target_frames=2)
    holder = Holder(0, (0, 30), [None], None)
    plan = plan_tokens(layout, 6, form="split", num_identity_captions=2, compat=Compat())
    assert plan.captions == ((0, 6, 1), (6, 12, 2), (12, 30, 0))
    part = plan.rows(4, 14, holder)
    assert part.captions == ((0, 2, 1), (2, 8, 2), (8, 10, 0))
    assert (part.identity, part.memory, part.target) == (12, 6, 12)
    assert plan.rows(20, 30, holder).captions == ((0, 10, 0),)


def test_tokens_spread_over_two_holders_give_the_same_output(tiny):
    model, inputs = tiny
    cuts, slots, barrier = (0, 17, 36), [None, None], threading.Barrier(2, timeout=30)

    @torch.no_grad()
    def run(rank):
        own = copy.deepcopy(model)
        own.sequence_parallel = Holder(rank, cuts, slots, barrier)
        return own(**inputs)

    with torch.no_grad(), ThreadPoolExecutor(2) as pool:
        wanted = model(**inputs)
        for out in pool.map(run, range(2)):
            assert (out - wanted).abs().max() < 1e-5
