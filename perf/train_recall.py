"""Which frames the queries come to pick: the share that shows the subject to be reconstructed, by the truth.

    make curate && python -m perf.train_recall [--dataset out/demo] [--seeds 0 1] [--gradients picked all]

Trains the debug recipe on the demo dataset, both experts, and asks the queries about draws that were not
trained on, before and after. Who is in a frame comes from the file that was written with the demo film, not
from what curation found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import torch

from curation.demo.truth import GroundTruth, TrueSubject, ground_truth
from memento_model.config import Expert, QueryGradient
from memento_model.training.config import TrainConfig
from memento_model.training.inputs import fill_cache, open_cache, read_inputs
from memento_model.training.objective import bank_size, elect
from memento_model.training.recipes import debug
from memento_model.training.samples import Frame, ReconTarget, TrainSequence
from memento_model.training.trainer import Feed, Run, build, train_step

GOAL = 0.8
UNSEEN = 10**6
"""Draws from this one on are not among those that a run trains on."""
PER_SECOND = 4
"""Frames are compared with the truth to this part of a second; candidates are as far apart."""


class Truth:
    """Who is in a frame of the demo film, and whom a reconstruction target shows."""

    def __init__(self, dataset: Path, truth: GroundTruth) -> None:
        self._seen: dict[int, list[TrueSubject]] = {}
        for mark in truth.subjects:
            self._seen.setdefault(round(mark.frame / truth.fps * PER_SECOND), []).append(mark)
        with duckdb.connect(str(dataset / "annotations.duckdb"), read_only=True) as db:
            clips = db.execute("SELECT sequence_id, clip_index, start_s FROM clips").fetchall()
            boxes = db.execute("SELECT recon_id, time_s, x, y, width, height FROM recon_targets").fetchall()
        self._start_s = {(sequence, clip): start for sequence, clip, start in clips}
        self._subject = {name: self._inside(time_s, *box) for name, time_s, *box in boxes}

    def shows(self, target: ReconTarget, sequence: TrainSequence, frame: Frame) -> bool:
        """Whether the subject of a target is in a frame of its sequence."""
        time_s = self._start_s[sequence.sequence_id, frame.clip] + frame.frame / 16
        there = {mark.subject for mark in self._seen.get(round(time_s * PER_SECOND), [])}
        return self._subject[target.recon_id] in there

    def _inside(self, time_s: float, x: float, y: float, width: float, height: float) -> str:
        """The subject that fills most of a box, in pixels of the film."""

        def covered(mark: TrueSubject) -> float:
            box = mark.box
            wide = min(x + width, box.x + box.width) - max(x, box.x)
            high = min(y + height, box.y + box.height) - max(y, box.y)
            return max(wide, 0) * max(high, 0) / (box.width * box.height + width * height)

        return max(self._seen[round(time_s * PER_SECOND)], key=covered).subject


@dataclass(frozen=True)
class Recall:
    """Of the frames picked that could show the subject, the share that does.

    Attributes:
        local_picks, global_picks: by either group of queries.
        by_chance: of global picks at random from what the local group left.
    """

    local_picks: float
    global_picks: float
    by_chance: float

    def __str__(self) -> str:
        return f"local {self.local_picks:.2f}, global {self.global_picks:.2f}, chance {self.by_chance:.2f}"


def recall(run: Run, truth: Truth, draws: int = 200) -> Recall:
    """Ask the queries about draws where some candidates show the target's subject and others do not."""
    assert run.feed is not None
    assert run.query is not None
    hits, could, chance = [0, 0], [0, 0], 0.0
    run.query.eval()
    for count in range(UNSEEN, UNSEEN + draws):
        sample, drawn, ready = run.feed.prepared(count)
        if not drawn.identities:
            continue
        target = drawn.identities[0]
        shows = [truth.shows(target, sample.sequence, frame) for frame in drawn.candidates]
        if all(shows) or not any(shows):
            continue
        with torch.no_grad():
            _, selection = elect(
                ready, run.transformer, run.query, bank_size(run.config.objective, run.query)
            )
        assert selection is not None
        picked, num_local = selection.picked_bk[0].tolist(), selection.num_local
        local = sum(shows[i] for i in picked[:num_local])
        left, places = sum(shows) - local, len(picked) - num_local
        hits = [hits[0] + local, hits[1] + sum(shows[i] for i in picked[num_local:])]
        could = [could[0] + min(num_local, sum(shows)), could[1] + min(places, left)]
        chance += places * left / max(1, len(shows) - num_local)
    run.query.train()
    return Recall(hits[0] / could[0], hits[1] / could[1], chance / could[1])


def runs(
    dataset: Path, folder: Path, seeds: Iterable[int], gradients: Iterable[QueryGradient]
) -> Iterator[TrainConfig]:
    """The debug recipe for both experts: `all` as it is, `picked` as the official trainer does it."""
    made = debug()
    experts: tuple[Expert, ...] = ("high", "low")
    for gradient in gradients:
        for seed in seeds:
            for expert in experts:
                yield replace(
                    made,
                    expert=expert,
                    seed=seed,
                    output=str(folder / "run"),
                    compat=replace(made.compat, query_gradient=gradient),
                    objective=replace(made.objective, drawn_picks=gradient == "all"),
                    data=replace(made.data, dataset=str(dataset)),
                )


def learn(config: TrainConfig, truth: Truth, steps: int) -> tuple[Recall, Recall]:
    """Train so many steps of a run; recall before and after."""
    inputs, _ = fill_cache(config, read_inputs(config))
    run = build(config)
    run.feed = Feed(inputs.train, open_cache(config, inputs), config)
    before = recall(run, truth)
    for _ in range(steps):
        train_step(run)
    return before, recall(run, truth)


def main(arguments: list[str] | None = None) -> int:
    """Print a line per run; 1 if the recipe's own gradient misses the goal in one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, default=Path("out/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--gradients", choices=("picked", "all"), nargs="+", default=["picked", "all"])
    parser.add_argument("--steps", type=int, default=debug().optim.query_steps or debug().steps)
    options: Any = parser.parse_args(arguments)
    truth = Truth(options.dataset, ground_truth(options.dataset / "source" / "ground_truth.json"))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for config in runs(options.dataset, Path(folder), options.seeds, options.gradients):
            before, after = learn(config, truth, options.steps)
            gradient = config.compat.query_gradient
            print(f"| {gradient} | {config.expert} | {config.seed} | {before} | {after} |", flush=True)
            failed |= gradient == debug().compat.query_gradient and after.global_picks < GOAL
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
