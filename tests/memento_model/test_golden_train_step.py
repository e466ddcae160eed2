"""One training step against the official numbers: picks, inputs, prediction, losses, gradients."""

from __future__ import annotations

import pytest

from tests.memento_model.golden import BLEND, NAMES, golden, layout, relative, torch

pytest.importorskip("peft")

from memento_model.config import Layout
from memento_model.nn.lora import inject_lora, trainable_tensors
from memento_model.nn.losses import velocity_loss


@pytest.fixture(scope="module", params=NAMES)
def numbers(request):
    return golden(request.param)


def step(numbers, model, query):
    """Query, mix in noise, condition, predict, compare: (selection, latents, inputs, prediction, loss)."""
    stored, case = numbers.train_step, numbers.config["train_step"]
    parts = layout(case)
    candidates = stored["candidates"][None]
    selection = query(
        candidates,
        torch.tensor([case["candidate_positions"]]),
        model.embed_text(stored["local_text"][None]),
        model.embed_text(stored["global_text"][None]),
        straight_through=True,
    )
    memory = selection.take(candidates)
    latents = torch.cat((stored["identity_latent"][None], memory, stored["target_latent"][None]), dim=2)
    noise, sigma = stored["noise"][None], case["sigma"]
    noisy = (1 - sigma) * latents + sigma * noise
    given = torch.zeros(1, 4, *latents.shape[2:])
    given[:, :, parts.memory] = 1
    given[:, :, parts.target.start] = float(case["first_frame_given"])
    condition = torch.cat(
        (stored["identity_condition"][None], memory, stored["target_condition"][None]), dim=2
    )
    condition = torch.cat((given, condition), dim=1)
    prediction = model(
        torch.cat((noisy, condition), dim=1),
        torch.tensor([float(case["timestep"])]),
        stored["text"][None],
        positions_bf=torch.tensor([case["temporal_positions"]]),
        layout=parts,
        identity_text=[stored["identity_text"][None]],
        attention="split" if case["split_attention"] else "joint",
    )
    loss = velocity_loss(prediction, latents, noise, parts, identity_weight=case["lambda"])
    return selection, noisy, condition, prediction, loss


def adapted(numbers):
    model, query = numbers.transformer(), numbers.keyframe_query()
    inject_lora(model, numbers.model_config(), BLEND)
    tensors = trainable_tensors(model, query)
    assert tensors.keys() == numbers.trainable.keys()
    with torch.no_grad():
        for name, parameter in tensors.items():
            parameter.copy_(numbers.trainable[name])
    return model, query, tensors


@pytest.mark.parametrize("checkpointing", [False, True])
def test_step_equals_the_reference(numbers, checkpointing):
    stored, case = numbers.train_step, numbers.config["train_step"]
    model, query, tensors = adapted(numbers)
    if checkpointing:
        model.enable_gradient_checkpointing()
    selection, noisy, condition, prediction, loss = step(numbers, model, query)
    assert selection.picked_bk[0].tolist() == case["picked"] == stored["picked"].tolist()
    assert (noisy[0] - stored["noisy"]).abs().max() <= 1e-6
    assert torch.equal(condition[0].detach(), stored["cond"])
    assert (prediction[0] - stored["prediction"]).abs().max() <= 1e-4
    assert loss.total.item() == pytest.approx(case["loss"], abs=1e-5)
    assert loss.target.item() == pytest.approx(case["loss_target"], abs=1e-5)
    assert loss.identity.item() == pytest.approx(case["loss_identity"], abs=1e-5)

    loss.total.backward()
    prefix = "low_noise_model.base_model.model."
    assert {prefix + name for name in tensors} == case["gradient_l2_norms"].keys()
    for name, parameter in tensors.items():
        norm = case["gradient_l2_norms"][prefix + name]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-3), name
        if f"grad.{name}" in stored:
            assert relative(parameter.grad, stored[f"grad.{name}"]) <= 1e-3, name


def test_step_in_bf16_stays_near_fp32(numbers):
    """bf16 base weights and autocast, fp32 adapters and queries, as training on a GPU does."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model, query, tensors = adapted(numbers)
        model.cast(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            *_, loss = step(numbers, model, query)
        loss.total.backward()
        grads = torch.cat([tensor.grad.flatten() for name, tensor in tensors.items() if ".lora_" in name])
        assert grads.dtype == torch.float32
        found.append((loss.total.item(), grads))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.01)
    assert (found[1][1] - found[0][1]).norm() / found[0][1].norm() < 0.02


def test_parts_of_the_loss_and_their_weights():
    parts = Layout(identity_frames=1, memory_frames=2, target_frames=3)
    latents, noise = torch.randn(2, 2, 4, 6, 3, 3)
    off = torch.zeros(6)
    off[parts.identity], off[parts.memory], off[parts.target] = 1.0, 2.0, 3.0
    prediction = noise - latents + off[:, None, None]
    loss = velocity_loss(prediction, latents, noise, parts, identity_weight=0.5, memory_weight=0.25)
    assert loss.identity.item() == pytest.approx(1, abs=1e-5)
    assert loss.memory.item() == pytest.approx(4, abs=1e-5)
    assert loss.target.item() == pytest.approx(9, abs=1e-5)
    assert loss.total.item() == pytest.approx(9 + 0.5 + 1, abs=1e-4)
    assert velocity_loss(prediction, latents, noise, parts).total.item() == pytest.approx(9.5, abs=1e-4)
    alone = velocity_loss(prediction, latents, noise, Layout(target_frames=6))
    assert alone.identity is None
    assert alone.memory is None


def test_frames_that_do_not_fit_the_layout_are_refused():
    x = torch.zeros(1, 16, 4, 2, 2)
    with pytest.raises(ValueError, match="must agree and have 3 frames"):
        velocity_loss(x, x, x, Layout(target_frames=3))
