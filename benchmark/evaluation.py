"""An evaluation in memory: what was scored, how, and what came out. Reports are made from this alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmark.aggregate import Scores
from benchmark.features import FeatureStore
from benchmark.presets import Preset
from benchmark.prompts import StoryAudit
from benchmark.stories import Story
from benchmark.submission import Submission


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was done to get the features of a method, counted.

    Attributes:
        videos: files read.
        decode_passes: files decoded, each from start to end; 0 if everything was at hand.
        encoded: kind -> frames or clips that went through an encoder.
        reused: kind -> those taken from disk.
        seconds: what -> wall seconds: `decode`, `encode`, `metrics`.
    """

    videos: int = 0
    decode_passes: int = 0
    encoded: Mapping[str, int] = field(default_factory=dict)
    reused: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """One method.

    Attributes:
        submission: its videos, with the facts of every file.
        scores: of the preset's metrics and of every other reading of their columns.
        store: the features, for similarities, drift and calibration.
        faults: what is wrong with it, a line each; nothing that is listed here was scored as 0.
        work: what was done.
    """

    submission: Submission
    scores: Scores
    store: FeatureStore
    faults: tuple[str, ...] = ()
    work: Work = Work()

    @property
    def name(self) -> str:
        """Of the method."""
        return self.submission.method


@dataclass(frozen=True, kw_only=True)
class EncoderFact:
    """An encoder of an evaluation: what it is, or why it is not there.

    Attributes:
        name: `viclip-b16`, `clip-b32`, `clip-l14`, `dinov2-b14`, `aes-mlp`, `aes-linear`.
        sha256: of the weights; empty where they are missing or random.
        precision: fp32, bf16 or fp16.
        device: where it ran.
        missing: why it is unavailable, and the command that brings it; empty if it is there.
        random: its weights are random numbers (for tests of the machinery): scores mean nothing.
    """

    name: str
    sha256: str = ""
    precision: str = "fp32"
    device: str = "cpu"
    missing: str = ""
    random: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Several methods on one benchmark under one recipe.

    Attributes:
        preset: how the numbers are made.
        recipe: hash under which results may be put in one table.
        stories: by key, those that were scored.
        methods: in the order that the user gave; the names differ.
        controls: methods made from the first one for calibration (shuffled, frozen, reversed), kept apart.
        encoders: used or missing ones.
        audits: story -> what the text tower reads of its prompts; empty without a text tower.
        certificate: lines that say how far this installation's encoders are from reference numbers.
        faults: of the benchmark's scripts and of the run, a line each.
        environment: package -> version, device, colour matrix, for the manifest.
        command: the command line, for the report.
    """

    preset: Preset
    recipe: str
    stories: Mapping[str, Story]
    methods: tuple[MethodResult, ...]
    controls: tuple[MethodResult, ...] = ()
    encoders: tuple[EncoderFact, ...] = ()
    audits: Mapping[str, StoryAudit] = field(default_factory=dict)
    certificate: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
