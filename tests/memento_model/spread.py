"""What every process of a spread run computes, and the same in one process."""

from __future__ import annotations

from dataclasses import replace
from functools import partialmethod

import torch
import torch.nn.functional as F

from memento_model.codecs.codec import GreyLatents
from memento_model.conditioning import Memory, condition_shot
from memento_model.config import Compat, Layout, ModelConfig
from memento_model.distributed.parallel import parallelise
from memento_model.distributed.sharding import average_gradients, clip_gradients, full_state, load_full_state
from memento_model.distributed.ulysses import Ulysses
from memento_model.flow import MEMENTO
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.lora import inject_lora
from memento_model.nn.losses import velocity_loss
from memento_model.nn.transformer import MementoTransformer, initialise
from memento_model.story.sampler import Sampling, ShotText
from memento_model.story.sampler import sample as run_sampler
from memento_model.training.config import ScaleConfig

CONFIG = ModelConfig(
    width=96, num_heads=4, num_layers=2, ffn_width=64, freq_dim=16, text_dim=24, text_len=8, lora_rank=4,
    lora_alpha=4, num_local_queries=3, num_global_queries=2, selected_local=2, selected_global=1,
)  # fmt: skip
PLAIN = ScaleConfig(dtype="fp32", checkpoint_activations=False)
FORMS = {
    "split": (1, "split", "joint"),
    "joint": (1, "joint", "joint"),
    "blend": (0, "split", "blend"),  # split without an identity frame
}


def models(no_identity="joint", *, train_base=False, seed=0):
    """A transformer with adapters that do something and a query module; the same in every process."""
    transformer = MementoTransformer.from_config(CONFIG, compat=Compat(no_identity_attention=no_identity))
    initialise(transformer, seed)
    torch.manual_seed(seed)
    query = KeyframeQuery(CONFIG)
    with torch.no_grad():
        transformer.proj_out.weight.normal_(0, 0.1)
    inject_lora(transformer, CONFIG, transformer.compat)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if ".lora_" in name:
                parameter.normal_(0, 0.1)
    if train_base:
        transformer.requires_grad_(True)
    return transformer, query


def sample(form, seed):
    """Inputs of one step, batch of two: 3 tokens a frame, so frames and processes share no boundary."""
    identities, attention, _ = FORMS[form]
    layout = Layout(identity_frames=identities, memory_frames=3, target_frames=3 - identities % 2)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    frames = layout.num_frames
    return {
        "candidates": draw(2, 16, 5, 2, 6),
        "candidate_positions": torch.tensor([[-40, -21, -9, -5, -2]]).repeat(2, 1),
        "global_text": draw(2, 4, 24),
        "latents": draw(2, 16, frames, 2, 6),
        "noise": draw(2, 16, frames, 2, 6),
        "condition": draw(2, 20, frames, 2, 6),
        "timestep": torch.tensor([937.0, 208.25]),
        "text": draw(2, 6, 24),
        "identity_text": [draw(2, 3, 24)] * identities or None,
        "positions": torch.tensor([[-512, *range(-9, -9 + frames - 1)]]).repeat(2, 1),
        "layout": layout,
        "attention": attention,
    }


def predict(transformer, query, given):
    """Query, put the picks into the memory slots, predict: (prediction, loss)."""
    selection = query(
        given["candidates"],
        given["candidate_positions"],
        transformer.embed_text(given["text"]),
        transformer.embed_text(given["global_text"]),
        straight_through=True,
    )
    layout, latents = given["layout"], given["latents"].clone()
    latents[:, :, layout.memory] = selection.take(given["candidates"])
    noisy = 0.4 * latents + 0.6 * given["noise"]
    prediction = transformer(
        torch.cat((noisy, given["condition"]), dim=1),
        given["timestep"],
        given["text"],
        positions_bf=given["positions"],
        layout=layout,
        identity_text=given["identity_text"],
        attention=given["attention"],
    )
    return prediction, velocity_loss(prediction, latents, given["noise"], layout).total


def optimiser(transformer, query):
    trainable = [p for module in (transformer, query) for p in module.parameters() if p.requires_grad]
    # A larger eps than usual: Adam would blow the rounding error of gradients near 1e-9 up to a whole step.
    return torch.optim.AdamW(trainable, lr=1e-3, eps=1e-6), trainable


def steps(world, scale, form, num_steps=1, *, start=None, train_base=False, max_norm=1.0):
    """Training steps, one sample per data rank; (losses, predictions, gradient norms, full state)."""
    transformer, query = models(FORMS[form][2], train_base=train_base)
    if start is not None:
        with torch.no_grad():
            for parameter in optimiser(transformer, query)[1]:
                parameter.zero_()
    parallelise(transformer, query, scale=scale, world=world)
    modules = {"transformer": transformer, "keyframe_query": query}
    optim, trainable = optimiser(transformer, query)
    if start is not None:
        load_full_state(modules, start[0] if world.is_first else None, optim)
    losses, norms, gradients = [], [], []
    for number in range(num_steps):
        world.meet(f"step {number}")
        given = sample(form, seed=100 * number + world.data_rank + (0 if start is None else 100 * start[1]))
        prediction, loss = predict(transformer, query, given)
        loss.backward()
        if world.size > 1:
            average_gradients(trainable)
        gradients.append({**_whole("transformer", transformer), **_whole("keyframe_query", query)})
        norms.append(float(clip_gradients(trainable, max_norm)))
        optim.step()
        optim.zero_grad()
        losses.append(loss.item())
    return {
        "losses": losses, "norms": norms, "prediction": prediction.detach(), "gradients": gradients,
        "state": full_state(modules, optim), "data_rank": world.data_rank,
    }  # fmt: skip


def _whole(prefix, module):
    grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {
        f"{prefix}.{name}": grad.full_tensor() if hasattr(grad, "full_tensor") else grad.clone()
        for name, grad in grads.items()
    }


def alone(form, num_samples, num_steps=1, *, train_base=False, max_norm=1.0):
    """The same steps in one process, samples one after the other."""
    transformer, query = models(FORMS[form][2], train_base=train_base)
    optim, trainable = optimiser(transformer, query)
    losses, norms, gradients, predictions = [], [], [], []
    for number in range(num_steps):
        made = [predict(transformer, query, sample(form, 100 * number + i)) for i in range(num_samples)]
        (sum(loss for _, loss in made) / num_samples).backward()
        gradients.append({**_whole("transformer", transformer), **_whole("keyframe_query", query)})
        norms.append(float(clip_gradients(trainable, max_norm)))
        optim.step()
        optim.zero_grad()
        losses.append([loss.item() for _, loss in made])
        predictions = [prediction.detach() for prediction, _ in made]
    modules = {"transformer": transformer, "keyframe_query": query}
    return {
        "losses": losses, "norms": norms, "predictions": predictions, "gradients": gradients,
        "state": full_state(modules, optim),
    }  # fmt: skip


def steps_of(world, more, *args):
    """`steps` with keyword arguments; `compiler` replaces the one that generates code."""
    if "compiler" in more:
        compiler = more.pop("compiler")
        compile_blocks = MementoTransformer.compile_repeated_blocks
        MementoTransformer.compile_repeated_blocks = partialmethod(compile_blocks, backend=compiler)
    return steps(world, *args, **more)


def exchanges(world):
    """Type, sent and received numbers of every message of a forward pass in bf16, and its relative error."""
    given = sample("split", 3)
    exact = predict(*models(), given)[0].detach()
    transformer, query = models()
    transformer.cast(torch.bfloat16)
    parallelise(transformer, query, scale=PLAIN, world=world)
    seen, send = [], torch.distributed.all_to_all_single

    def spy(output, rows, *args, **more):
        seen.append((rows.dtype, rows.numel(), output.numel()))
        return send(output, rows, *args, **more)

    torch.distributed.all_to_all_single = spy
    try:
        with torch.no_grad():
            made = predict(transformer, query, given)[0]
    finally:
        torch.distributed.all_to_all_single = send
    return {"forward": seen, "near": ((made - exact).norm() / exact.norm()).item()}


def sampled(world, scale):
    """A shot from noise: four solver steps with guidance, both experts."""
    experts = {}
    for seed, expert in enumerate(("high", "low")):
        transformer, _ = models(seed=seed)
        parallelise(transformer.eval(), scale=scale, world=world)
        experts[expert] = transformer
    generator = torch.Generator().manual_seed(11)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    grey = GreyLatents(frame_cfhw=draw(16, 1, 2, 6), video_cfhw=draw(16, 3, 2, 6))
    conditioning = condition_shot(
        grey,
        memory=Memory(latents_cmhw=draw(16, 2, 2, 6), times=(0, 11)),
        given=None,
        start_frame=81,
        num_identities=1,
        compat=Compat(),
    )
    text = ShotText(
        prompt_td=draw(6, 24),
        negative_td=draw(3, 24),
        identity_td=draw(4, 24),
        identity_negative_td=draw(1, 24),
    )
    sampling = Sampling(schedule=replace(MEMENTO, steps=4), guidance={"high": 3.5, "low": 3.5})
    noise = draw(1, 16, conditioning.layout.num_frames, 2, 6)
    return run_sampler(experts.get, {"high": conditioning, "low": conditioning}, text, noise, sampling)


def load_a_wrong_state(world):
    transformer, query = models()
    parallelise(transformer, query, scale=replace(PLAIN, shard=True), world=world)
    modules = {"transformer": transformer, "keyframe_query": query}
    state = full_state(modules)
    if world.is_first:
        state["model"]["keyframe_query.other"] = state["model"].pop("keyframe_query.queries")
    load_full_state(modules, state)


def uneven_heads(world):
    """Three heads and eleven tokens over the processes: attention's output, and gradients of q, k and v."""
    generator = torch.Generator().manual_seed(5)
    parts = [torch.randn(2, 11, 3, 4, generator=generator, requires_grad=True) for _ in range(3)]
    weight = torch.randn(2, 11, 3, 4, generator=generator)

    def inner(*heads):
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in heads)).transpose(1, 2)

    if world.context_size == 1:
        out = inner(*parts)
        (out * weight).sum().backward()
        return out.detach(), [part.grad for part in parts]
    spread = Ulysses(world.context_group)
    start, stop = spread.span(11)
    own = spread.attend(*(part[:, start:stop] for part in parts), inner, 11)
    (own * weight[:, start:stop]).sum().backward()
    for part in parts:
        torch.distributed.all_reduce(part.grad)
    return spread.gather(own.detach().flatten(2), 11).unflatten(2, (3, 4)), [part.grad for part in parts]


def share_one_head(world):
    transformer = MementoTransformer.from_config(replace(CONFIG, num_heads=1))
    parallelise(transformer, scale=PLAIN, world=world)


def used_here_and_there(world):
    """Gradients after averaging: used everywhere, on the second process alone, nowhere."""
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    (parameters[0] * (world.rank + 1)).sum().backward()
    if world.rank == 1:
        parameters[1].sum().backward()
    average_gradients(parameters)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]
