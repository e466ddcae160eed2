"""The training loop of one expert: samples in order, loss, gradients, a step, and what is told about it.

    run = build(config, world)                      weights, adapters, queries, optimiser
    run.feed = Feed(inputs.train, latents, config)  samples by their place in the run
    fit(run, watch, keeper)                         until config.steps

The same on any number of processes: the samples of a step are those at consecutive places, each worked on
by one process (or one group of them that shares its tokens), one after the other where there are fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from memento_model.checkpoints.choice import locate
from memento_model.checkpoints.foreign_config import with_trainable
from memento_model.checkpoints.forms import QUERY_NORMS, open_checkpoint
from memento_model.checkpoints.load import install, load_transformer
from memento_model.config import Expert, ModelConfig
from memento_model.distributed.launch import World
from memento_model.distributed.offload import make_lean, offload
from memento_model.distributed.parallel import parallelise
from memento_model.distributed.sharding import average_gradients
from memento_model.errors import CheckpointError, DataError
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.lora import inject_lora, lora_layers
from memento_model.nn.transformer import MementoTransformer, initialise
from memento_model.training.cache_plan import last_frames
from memento_model.training.config import TrainConfig
from memento_model.training.fast_start import fast_start
from memento_model.training.objective import Latents, Prepared, Step, prepare, training_step
from memento_model.training.optim import Optimiser
from memento_model.training.samples import Draw, Sample, TrainSequence, draw, place_of, samples_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SMALL_WIDTH = 512
"""On a CPU, models narrower than this compute on one thread: handing numbers around costs more, and one
thread adds up in the same order everywhere."""


class Feed:
    """The samples of a run by their place: which sample, what is drawn for it, its latents on the device."""

    def __init__(
        self,
        sequences: Sequence[TrainSequence],
        latents: Latents,
        config: TrainConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        self.samples: list[Sample] = samples_of(sequences)
        if not self.samples:
            raise DataError("no sequence has a second clip, so there is nothing to train on")
        self.latents, self.config, self.device = latents, config, device
        self.last_frames = last_frames(config)

    def drawn(self, count: int) -> tuple[Sample, Draw]:
        """The sample after `count` others, and what is drawn for it."""
        place = place_of(count, len(self.samples), self.config.seed)
        sample = self.samples[place.index]
        made = draw(
            sample,
            self.config.objective,
            seed=self.config.seed,
            epoch=place.epoch,
            number=place.number,
            last_frames=self.last_frames,
        )
        return sample, made

    def prepared(self, count: int) -> tuple[Sample, Draw, Prepared]:
        """`drawn`, read from the cache."""
        sample, made = self.drawn(count)
        ready = prepare(sample, made, self.latents, self.config.expert, self.config.compat, self.device)
        return sample, made, ready


@dataclass(kw_only=True)
class Run:
    """One expert in training.

    Attributes:
        config: of the run.
        world: the processes.
        model: shape of the expert.
        transformer, query: what is trained; no query in the baseline.
        optimiser: of all trainable weights.
        accumulate: samples of a step that this process works on.
        step: steps done.
        count: samples done, on all processes together.
        feed: where samples come from.
        validation: held-out loss when it was last measured.
    """

    config: TrainConfig
    world: World
    model: ModelConfig
    transformer: MementoTransformer
    query: KeyframeQuery | None
    optimiser: Optimiser
    accumulate: int
    step: int = 0
    count: int = 0
    feed: Feed | None = None
    validation: float | None = field(default=None)

    @property
    def batch(self) -> int:
        """Samples of a step, on all processes together."""
        return self.accumulate * self.world.data_size

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by the names that checkpoints use."""
        return modules_of(self.transformer, self.query)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Products in the run's type; trainable weights stay fp32."""
        with torch.autocast(
            self.world.device.type, dtype=torch.bfloat16, enabled=self.config.scale.dtype == "bf16"
        ):
            yield

    def forward(self, sample: Prepared) -> Step:
        """Forward pass and loss of one sample."""
        with self.computing():
            return training_step(
                sample, self.transformer, self.query, self.config.objective, self.config.compat
            )


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a step did; numbers are left on the device until somebody reads them.

    Attributes:
        step: its number, from 1.
        timesteps: noise level of each sample that this process worked on.
        losses: of each sample: total, target, identity, memory; NaN where there is no such part.
        norm: of the gradients before clipping.
        lr: learning rate.
        tokens: rows that the transformer saw in this process.
    """

    step: int
    timesteps: tuple[float, ...]
    losses: tuple[Tensor, ...]
    norm: Tensor
    lr: float
    tokens: int


class Watch(Protocol):
    """Is told what happens; every process calls it."""

    def begin(self, run: Run) -> None:
        """The run starts or goes on."""

    def step(self, run: Run, done: Done) -> None:
        """A step is done: the place to measure and to show."""

    def end(self, run: Run) -> None:
        """All steps are done."""


class Keeper(Protocol):
    """Writes checkpoints; every process calls it."""

    def save(self, run: Run) -> None:
        """Keep the state as it is now; may write while the run goes on."""

    def finish(self) -> None:
        """Wait until everything is written."""


def fit(run: Run, watch: Watch, keeper: Keeper, stopped: Callable[[], bool] = lambda: False) -> None:
    """Train to the last step, or to the first after which `stopped` says so.

    Args:
        run: new, or brought back by `memento_model.training.state.resume`.
        watch: told after every step.
        keeper: asked for a checkpoint every `save_every` steps and at the end.
        stopped: asked after every step; the same on all processes.
    """
    every = run.config.watch.save_every
    run.transformer.train()
    watch.begin(run)
    stop = False
    while run.step < run.config.steps and not stop:
        run.world.meet(f"step {run.step + 1}")
        done = train_step(run)
        watch.step(run, done)
        stop = stopped()
        if stop or run.step % every == 0 or run.step == run.config.steps:
            keeper.save(run)
    keeper.finish()
    watch.end(run)


def train_step(run: Run) -> Done:
    """One update: this process's samples one after the other, gradients averaged over all, a step."""
    assert run.feed is not None
    losses, timesteps, tokens = [], [], 0
    for number in range(run.accumulate):
        count = run.count + number * run.world.data_size + run.world.data_rank
        _, _, sample = run.feed.prepared(count)
        made = run.forward(sample)
        (made.loss.total / run.accumulate).backward()
        losses.append(parts(made))
        timesteps.append(float(sample.level.timestep_b[0]))
        tokens += num_tokens(made)
    settle_gradients(run)
    norm, lr = run.optimiser.step(run.step)
    run.step, run.count = run.step + 1, run.count + run.batch
    return Done(
        step=run.step, timesteps=tuple(timesteps), losses=tuple(losses), norm=norm, lr=lr, tokens=tokens
    )


def settle_gradients(run: Run) -> None:
    """The mean over all processes; weights that no sample used get zeros on any number of them."""
    parameters = run.optimiser.parameters.values()
    if run.world.size > 1:
        average_gradients(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def parts(made: Step) -> Tensor:
    """Total, target, identity and memory loss, fp32 [4]; NaN where a part is missing."""
    loss = made.loss
    missing = torch.full_like(loss.target, torch.nan)
    named = (loss.total.detach(), loss.target, loss.identity, loss.memory)
    return torch.stack([missing if part is None else part for part in named])


def num_tokens(made: Step) -> int:
    """Rows of the transformer's sequence."""
    frames, rows, columns = made.clean_bcfhw.shape[2:]
    return frames * (rows // 2) * (columns // 2)


# -- building -----------------------------------------------------------------------------------------


def build(config: TrainConfig, world: World | None = None) -> Run:
    """Weights, adapters and queries on the device, spread as asked, and their optimiser.

    Args:
        config: of the run.
        world: the processes; None is this one, on a GPU where there is one.

    Raises:
        CheckpointError: the base or start weights cannot be used.
        WeightsMissing: named, but not on this machine.
        ValueError: settings that do not go together.
    """
    if world is None:
        world = World(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if world.device.type == "cpu" and config.base is None and config.model.width < SMALL_WIDTH:
        torch.set_num_threads(1)  # before anything is drawn: even a decomposition depends on it
    transformer, query, model = make_models(config)
    place(transformer, config, world)
    if query is not None:
        query.to(world.device)
    parallelise(transformer, query, scale=config.scale, world=world)
    optimiser = Optimiser(trainable(transformer, query), config.optim, config.steps)
    return Run(
        config=config,
        world=world,
        model=model,
        transformer=transformer,
        query=query,
        optimiser=optimiser,
        accumulate=config.scale.accumulate,
    )


def place(transformer: MementoTransformer, config: TrainConfig, world: World) -> None:
    """Onto the device, but for what the settings leave in host memory; adapters read bf16 as it is."""
    scale = config.scale
    if scale.offload_weights or scale.offload_activations:
        offload(
            transformer, world.device, weights=scale.offload_weights, activations=scale.offload_activations
        )
    else:
        transformer.to(world.device)  # type: ignore[arg-type]
    if scale.lean_blocks:
        make_lean(transformer)
    if scale.dtype == "bf16":
        # Autocast rounds what an adapter reads to bf16 anyway; PEFT would make it fp32 first, a copy for
        # every adapter that the backward pass keeps.
        for layer in lora_layers(transformer).values():
            layer.cast_input_dtype_enabled = False


def modules_of(transformer: nn.Module, query: nn.Module | None) -> dict[str, nn.Module]:
    """Transformer and queries by the names that checkpoints use."""
    made: dict[str, nn.Module] = {"transformer": transformer}
    return made if query is None else {**made, "keyframe_query": query}


def trainable(transformer: nn.Module, query: nn.Module | None) -> dict[str, nn.Parameter]:
    """Weights that move, by name."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in modules_of(transformer, query).items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def make_models(config: TrainConfig) -> tuple[MementoTransformer, KeyframeQuery | None, ModelConfig]:
    """The expert and its queries on the CPU, ready to be trained; what is drawn follows from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config))
        return _make_models(config)


def _make_models(config: TrainConfig) -> tuple[MementoTransformer, KeyframeQuery | None, ModelConfig]:
    transformer, model = _base(config)
    tensors = None
    if config.start_from:
        tensors, told = open_checkpoint(locate(config.start_from)).trainable(config.expert)
        model = with_trainable(model, told)
    if model.lora_rank:
        inject_lora(transformer, model, config.compat)
    if config.train_base:
        transformer.requires_grad_(True)
    else:
        transformer.cast(DTYPES[config.scale.dtype])
    gradient = config.compat.query_gradient
    query = KeyframeQuery(model, gradient) if config.objective.learnable_query else None
    if tensors is not None:
        with_queries = any(name.startswith("keyframe_query.") for name in tensors)
        if with_queries and query is None:
            tensors = tensors.chosen(n for n in tensors if not n.startswith("keyframe_query."))
        install(tensors, transformer, query if with_queries else None)
        _revive(query)
    return transformer, query, model


@torch.no_grad()
def _revive(query: KeyframeQuery | None) -> None:
    """Norms that are all zero never get a gradient; they start at one (see `dead_norms`)."""
    for name in QUERY_NORMS if query is not None else ():
        weight = query.get_parameter(name)  # type: ignore[union-attr]
        if not weight.any():
            weight.fill_(1)


def _base(config: TrainConfig) -> tuple[MementoTransformer, ModelConfig]:
    if config.base is None:
        transformer = MementoTransformer.from_config(config.model, compat=config.compat)
        initialise(transformer, _seed(config))
        if config.train_base:
            fast_start(transformer, config.model)
        return transformer, config.model
    place = open_checkpoint(locate(config.base))
    dtype = torch.float32 if config.train_base else DTYPES[config.scale.dtype]
    transformer, found = load_transformer(place, config.expert, dtype=dtype, compat=config.compat)
    if not found.has_condition:
        raise CheckpointError(
            f"{config.base}: Wan's T2V form, which has no room for memory; take the I2V form"
        )
    ours = {name: getattr(config.model, name) for name in OWN_FIELDS}
    return transformer, replace(found, **ours)


OWN_FIELDS = (
    "num_local_queries", "num_global_queries", "selected_local", "selected_global", "keyframe_temperature",
    "lora_rank", "lora_alpha",
)  # fmt: skip
"""Of `ModelConfig`: what training adds, whatever the base is."""


def _seed(config: TrainConfig) -> int:
    """Of random weights; the experts start from different ones."""
    experts: dict[Expert, int] = {"high": 0, "low": 1}
    return 2 * config.seed + experts[config.expert]


def told(config: TrainConfig) -> dict[str, Any]:
    """Settings as JSON values, for checkpoints and logs."""
    import dataclasses
    import json

    made: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return made
