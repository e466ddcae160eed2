"""The evaluation against one loop per metric, with the same encoders in the same run.

    python -m perf.evaluation [FOLDER] [--shots 3] [--frames 81] [--device cpu] [--columns all]

FOLDER holds videos of shots; moving pictures are made if none is given. Encoders have real size and made-up
weights. The peer does what public toolkits do: each metric by itself loads its model (here: copies it in
memory, which is less than reading a file), decodes the videos again with one thread, and encodes what it
samples, a video at a time, or frame by frame as VBench's subject loop does, with PyTorch's own products and
attention. Ours decodes once, encodes each picture once, on processors where it is faster with the products of
`curation.cpu_linear`, and also gives every other reading of each column. Values are compared.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from benchmark.encoders.load import EncoderSet, encoders_for
from benchmark.extraction.lacking import wanted
from benchmark.extraction.plan import CLIP_L14, ENCODER_OF, VICLIP, Plan, make_plan, sources
from benchmark.extraction.run import extract
from benchmark.extraction.spreading import GFLOP, GFLOP_CLIP
from benchmark.features import TEXT, FeatureTable
from benchmark.presets import Preset, all_readings, metrics_of, preset
from benchmark.scoring import Metric, score
from benchmark.stories import Scene, Shot, ShotKey, Story
from benchmark.submission import Clip, Submission, VideoFacts, probed, read_folder
from curation.cpu_linear import plain_products

GOAL, SHARE_GOAL = 5.0, 0.85
TOLERANCE = 1e-4


# -- videos ---------------------------------------------------------------------------------------


def story_of(shots: int) -> dict[str, Story]:
    """A story of so many shots, three a scene."""
    keys = [ShotKey(1 + i // 3, 1 + i % 3) for i in range(shots)]
    scenes = tuple(
        Scene(
            number=number,
            shots=tuple(
                Shot(key=key, prompt=f"[Person A] does thing {key.shot} of scene {number}.", cut=True)
                for key in keys
                if key.scene == number
            ),
        )
        for number in sorted({key.scene for key in keys})
    )
    return {"tale": Story(key="tale", scenes=scenes, overview="Somebody does things.")}


def write_shots(root: Path, source: Path | None, shots: int, frames: int) -> None:
    """Shots of so many frames as a method's folder."""
    files = sorted(source.rglob("*.mp4"))[:shots] if source else []
    for number, shot in enumerate(story_of(shots)["tale"].shots):
        pictures = _real(files[number % len(files)], frames) if files else _moving(number, frames)
        _write(root / "m" / "tale" / f"{shot.key.stem}.mp4", pictures)


def _real(path: Path, frames: int) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in itertools.islice(container.decode(video=0), frames)]


def _moving(seed: int, frames: int) -> list[np.ndarray]:
    blobs = np.random.default_rng(seed).integers(0, 255, (30, 60, 3))
    wide = np.kron(blobs, np.ones((16, 16, 1))).astype(np.uint8)
    return [wide[:480, i : i + 832] for i in range(frames)]


def _write(path: Path, pictures: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "10", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


# -- the peer -------------------------------------------------------------------------------------


@dataclass
class Peer:
    """One loop per metric."""

    stories: dict[str, Story]
    submission: Submission
    chosen: Preset
    encoders: EncoderSet
    seconds: Counter = field(default_factory=Counter)
    work: Counter = field(default_factory=Counter)

    def value(self, metric: Metric) -> float:
        """A metric from nothing."""
        tokenize = self.encoders.clips.tokenize if self.encoders.clips else None
        plan = make_plan(self.stories, self.submission, self.chosen, tokenize, [metric])
        arrays, lengths = {}, {}
        frames = {e.kind: e for e in self.encoders.frames}
        for kind in {ENCODER_OF[k] for k in metric.needs if k in ENCODER_OF}:
            self._load(frames.get(kind, self.encoders.clips))
        for (story, shot), by_kind in plan.frames.items():
            for kind, taken in by_kind.items():
                rows = self._frames(frames[kind], self._decode(plan.clips[story, shot].path), taken)
                whole = np.ones((plan.clips[story, shot].num_frames, rows.shape[1]), np.float32)
                whole[taken] = rows
                arrays |= self._kinds(story, shot, kind, whole)
        for (story, unit, kind), clips in plan.units.items():
            parts = {c.facts.sha256: c.path for clip in clips for c in clip.parts}
            pictures = {sha256: self._decode(path) for sha256, path in parts.items()}
            taken = np.stack([pictures[s][i] for c in clips for s, i in sources(c.parts, c.frames)])
            arrays[story, unit, kind] = self._clips(taken)
        for (story, unit), texts in plan.texts.items():
            arrays[story, unit, TEXT] = self.encoders.clips.encode_texts(list(texts))[0]
        lengths = {(s, tuple(k)): c.num_frames for (s, k), c in plan.clips.items()}
        rates = {(s, tuple(k)): c.facts.fps for (s, k), c in plan.clips.items()}
        store = FeatureTable(arrays, lengths, rates)
        return score([metric], self.stories, store, recipe="r").metrics[metric.name].value()

    def _kinds(self, story: str, shot: ShotKey, kind: str, whole: np.ndarray) -> dict:
        if kind != CLIP_L14:
            return {(story, tuple(shot), kind): whole}
        from benchmark.encoders.aesthetic import scores

        units = whole / np.linalg.norm(whole, axis=1, keepdims=True)
        return {(story, tuple(shot), name): values for name, values in scores(units).items()}

    def _load(self, encoder) -> None:
        started = time.perf_counter()
        copy.deepcopy(encoder._runner.module())
        self.seconds["load"] += time.perf_counter() - started
        self.work["loads"] += 1

    def _decode(self, path: Path) -> list[np.ndarray]:
        started = time.perf_counter()
        with av.open(str(path)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        self.seconds["decode"] += time.perf_counter() - started
        self.work["decodes"] += 1
        return pictures

    def _frames(self, encoder, pictures: list[np.ndarray], taken: np.ndarray) -> np.ndarray:
        small = encoder.pixels.pictures(np.stack([pictures[i] for i in taken]))
        started = time.perf_counter()
        step = 1 if encoder.kind == "dino_b14" else len(small)
        rows = [encoder.encode(small[i : i + step]) for i in range(0, len(small), step)]
        self.seconds["encode"] += time.perf_counter() - started
        self.work[encoder.kind] += len(small)
        return np.concatenate(rows)

    def _clips(self, pictures_thwc: np.ndarray) -> np.ndarray:
        small = self.encoders.clips.pixels.pictures(pictures_thwc)
        started = time.perf_counter()
        rows = self.encoders.clips.encode(small.reshape(-1, 8, *small.shape[1:]))
        self.seconds["encode"] += time.perf_counter() - started
        self.work[VICLIP] += len(rows)
        return rows


# -- measuring ------------------------------------------------------------------------------------


def gflop(work: Counter) -> float:
    """Of the encoders' forward passes on pictures."""
    return sum(GFLOP.get(k, 0.0) * n for k, n in work.items()) + GFLOP_CLIP * work[VICLIP]


def compare(options: argparse.Namespace, root: Path) -> list[str]:
    """Rows of the table."""
    write_shots(root, options.folder, options.shots, options.frames)
    stories = story_of(options.shots)
    submission = probed(read_folder(root / "m", stories), stories)
    chosen = preset("memento")
    encoders = encoders_for(chosen, device=options.device, random=True)
    for encoder in (*encoders.frames, encoders.clips):
        encoder._runner.module()  # both sides begin with weights in memory
    metrics = metrics_of(chosen, weight_free=False)
    if options.columns == "all":
        metrics = [m for m in all_readings(chosen) if not any(k.startswith("stat_") for k in m.needs)]
    started = time.perf_counter()
    store, work, faults = extract(submission, stories, chosen, encoders, root / "features")
    scores = score(all_readings(chosen), stories, store, recipe="r")
    ours = time.perf_counter() - started
    assert not faults, faults
    started = time.perf_counter()
    extract(submission, stories, chosen, encoders, root / "features")
    score(all_readings(chosen), stories, store, recipe="r")
    again = time.perf_counter() - started
    peer, off = Peer(stories, submission, chosen, encoders), 0.0
    started = time.perf_counter()
    for metric in metrics:
        with plain_products():
            value = peer.value(metric)
        own = scores.metrics[metric.name].value()
        assert np.isnan(value) == np.isnan(own), f"{metric.name}: {value} and {own}"
        off = max(off, 0.0 if np.isnan(value) else abs(value - own))
    theirs = time.perf_counter() - started
    assert off < TOLERANCE, f"values differ by {off:.1e}"
    done = Counter(work.encoded)
    return [
        f"| wall s | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} |",
        f"| in encoders s | {work.seconds['encode']:.1f} | {peer.seconds['encode']:.1f} | |",
        f"| share of wall in encoders | {work.seconds['encode'] / ours:.1%} "
        f"| {peer.seconds['encode'] / theirs:.1%} | |",
        f"| decode passes per video | {work.decode_passes / work.videos:g} "
        f"| {peer.work['decodes'] / work.videos:g} | |",
        f"| decoding s (ours: with resizing and weight-free numbers, beside the encoders) "
        f"| {work.seconds['decode']:.1f} | {peer.seconds['decode']:.1f} | |",
        f"| models loaded | {len(encoders.frames) + 1} | {peer.work['loads']} | |",
        *(f"| {kind} | {done[kind]} | {peer.work[kind]} | |" for kind in (*GFLOP, VICLIP)),
        f"| TFLOP | {gflop(done) / 1e3:.1f} | {gflop(peer.work) / 1e3:.1f} "
        f"| {gflop(peer.work) / gflop(done):.2f} |",
        f"| GFLOP/s in encoders | {gflop(done) / work.seconds['encode']:.0f} "
        f"| {gflop(peer.work) / peer.seconds['encode']:.0f} | |",
        f"| a second run, s | {again:.2f} | {theirs:.1f} | {theirs / again:.0f} |",
        f"| metrics | {len(all_readings(chosen))} | {len(metrics)} | |",
        f"| values differ by at most | {off:.0e} | | |",
    ]


def counted(shots: int = 10, frames: int = 81) -> list[str]:
    """What both sides would encode of whole shots of different content: counted, not run."""
    stories = story_of(shots)
    clips = {shot.key: _clip(shot.key.stem, frames) for shot in stories["tale"].shots}
    submission, chosen = Submission(method="m", clips={"tale": clips}), preset("memento")
    readings = [m for m in all_readings(chosen) if not any(k.startswith("stat_") for k in m.needs)]
    rows = []
    for what, metrics in (("columns", metrics_of(chosen, weight_free=False)), ("every reading", readings)):
        once = _counts(make_plan(stories, submission, chosen, str.split, readings))
        plans = [make_plan(stories, submission, chosen, str.split, [metric]) for metric in metrics]
        each = sum(map(_counts, plans), Counter())
        rows.append(
            f"| {what}: {len(metrics)} metrics | {gflop(once) / 1e3:.0f} | {gflop(each) / 1e3:.0f} "
            f"| {gflop(each) / gflop(once):.2f} | 1 | {len(metrics)} |"
        )
    return rows


def _counts(plan: Plan) -> Counter:
    want = wanted([plan], (*GFLOP, VICLIP))
    found: Counter = Counter()
    for filed in want.keys:
        found[filed[0]] += want.count(filed)
    return found


def _clip(name: str, frames: int) -> Clip:
    facts = VideoFacts(
        sha256=name, frames=frames, fps=16.0, height=480, width=832, codec="h264", pix_fmt="yuv420p",
        bitrate=0.0, duration_s=frames / 16, matrix="untagged",
    )  # fmt: skip
    return Clip(path=Path(name), facts=facts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="videos of shots; moving pictures if not given")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--columns",
        choices=["preset", "all"],
        default="preset",
        help="what the peer computes: the columns, or every reading of them, as ours does",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(options, Path(folder))
    print(
        f"### Preset `memento`, {options.shots} shots of {options.frames} frames, {options.device}, fp32; "
        f"the peer computes {'its columns' if options.columns == 'preset' else 'every reading'}\n"
    )
    print("\n".join(["| what | ours | a loop per metric | ratio |", "|---|---|---|---|", *rows]))
    print("\n### Ten shots of 81 frames, three a scene: counted, not run\n")
    head = ["| the peer computes | ours TFLOP | peer TFLOP | ratio | our decode passes | the peer's |"]
    print("\n".join([*head, "|---|---|---|---|---|---|", *counted()]))
    print(f"\nGoals: wall ratio >= {GOAL:.0f}, share in encoders >= {SHARE_GOAL:.0%}, one decode pass.")


if __name__ == "__main__":
    main()
