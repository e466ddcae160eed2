"""From a run's settings to its samples: read, checked, split by film, encoded once, opened.

inputs = read_inputs(config)                  faults are found here, before anything is encoded
inputs, filled = fill_cache(config, inputs)   damage inside a video is found here
latents = open_cache(config, inputs)          quick; every process opens it for itself
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from memento_model.errors import DataError
from memento_model.training.cache_encoders import Encoders, key_in, pick_device
from memento_model.training.cache_fill import Filled, FillOptions, Progress, fill
from memento_model.training.cache_plan import plan_cache
from memento_model.training.config import TrainConfig
from memento_model.training.data import Contract, check, read_sequences, split_by_film
from memento_model.training.latent_cache import CachedLatents
from memento_model.training.samples import TrainSequence, samples_of

REMEDY = (
    "nothing was trained; leave out what cannot be used with --set data.on_bad_sample=skip (memento cache: "
    "--skip-bad), choose other sequences with a condition (data.where), or mend the dataset"
)
SHORT = (
    "{count} of these faults are clips too short for a shot of {frames} frames, as the presets paper-table "
    "and bridged make them; skipped, they are still remembered but are no shots to train on"
)


@dataclass(frozen=True, kw_only=True)
class TrainInputs:
    """What a run works on; can be sent to other processes.

    Attributes:
        train, validation: sequences, no film in both.
        faults: a line for each; empty unless bad samples are skipped.
        skipped: samples of the sequences with faults.
    """

    train: tuple[TrainSequence, ...]
    validation: tuple[TrainSequence, ...]
    faults: tuple[str, ...] = ()
    skipped: int = 0

    @property
    def sequences(self) -> tuple[TrainSequence, ...]:
        """All of them."""
        return (*self.train, *self.validation)

    def without(self, bad_paths: Collection[str], faults: tuple[str, ...]) -> TrainInputs:
        """The same without the sequences that need one of these files."""

        def good(sequences: tuple[TrainSequence, ...]) -> tuple[TrainSequence, ...]:
            return tuple(s for s in sequences if not any(c.path in bad_paths for c in s.clips))

        left = replace(self, train=good(self.train), validation=good(self.validation))
        lost = len(samples_of(self.sequences)) - len(samples_of(left.sequences))
        return replace(left, faults=(*self.faults, *faults), skipped=self.skipped + lost)


def read_inputs(config: TrainConfig) -> TrainInputs:
    """The sequences of a run.

    Raises:
        DataError: the dataset cannot be read, breaks the trainer's contract (all faults at once, unless
            they are skipped), or nothing is left of it.
    """
    data = config.data
    contract = Contract(grid=config.grid, max_candidates=data.max_candidates_per_clip)
    checked = check(read_sequences(Path(data.dataset), data.where), contract)
    if checked.faults and data.on_bad_sample == "stop":
        short = SHORT.format(count=checked.num_short, frames=config.grid.num_frames)
        raise DataError(*checked.faults, *([short] if checked.num_short else []), REMEDY)
    train, validation = split_by_film(checked.sequences, data.validation_share)
    inputs = TrainInputs(
        train=tuple(train), validation=tuple(validation), faults=checked.faults, skipped=checked.skipped
    )
    return _not_empty(config, inputs)


def _not_empty(config: TrainConfig, inputs: TrainInputs) -> TrainInputs:
    if not inputs.train:
        chosen = f" where {config.data.where}" if config.data.where else ""
        if chosen and not (inputs.skipped or inputs.validation or inputs.faults):
            raise DataError(
                f"{config.data.dataset}: data.where={config.data.where!r} matches no kept sequence"
            )
        raise DataError(
            *inputs.faults,
            f"{config.data.dataset}{chosen}: no sequence can be trained on ({inputs.skipped} samples "
            f"skipped, {len(inputs.validation)} sequences held out)",
        )
    return inputs


def cache_folder(config: TrainConfig) -> Path:
    """Where a run's cache is: as set, else beside the run's output, so that runs share it."""
    return Path(config.data.cache) if config.data.cache else Path(config.output).parent / "cache"


def fill_cache(
    config: TrainConfig,
    inputs: TrainInputs,
    options: FillOptions | None = None,
    progress: Progress | None = None,
) -> tuple[TrainInputs, Filled]:
    """Encode what the run's cache lacks; one process does it for all.

    Returns:
        The inputs without sequences that cannot be decoded, where those are skipped; and what was done.

    Raises:
        DataError: a video is damaged (all faults at once, unless they are skipped), or the disk is full.
        WeightsMissing: the encoders are not on this machine.
    """
    options = options or FillOptions()
    encoders = Encoders.of(config, pick_device(options.device))
    plan = plan_cache(inputs.sequences, config)
    filled = fill(cache_folder(config), plan, encoders.key(config), encoders, options, progress)
    if filled.faults and config.data.on_bad_sample == "stop":
        raise DataError(*filled.faults, REMEDY)
    return _not_empty(config, inputs.without(filled.bad_paths, filled.faults)), filled


def open_cache(config: TrainConfig, inputs: TrainInputs) -> CachedLatents:
    """The filled cache of a run; needs no weights of codec and text encoder.

    Raises:
        DataError: something is missing.
    """
    folder = cache_folder(config)
    return CachedLatents(folder, plan_cache(inputs.sequences, config), key_in(folder, config))
