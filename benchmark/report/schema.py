"""What a report holds: plain values only, so that it can be written, read and shown without any video.

A number that does not exist is None, never 0; `reason` beside it says why. Stories, shots and metrics are
named as in `benchmark.stories` and `benchmark.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FORMAT = "memento-results/1"
"""Changes whenever a field changes its meaning or goes; fields may be added."""

MEASURED_COLUMN, WEIGHT_FREE_COLUMN = "preset", "weight-free"

Number = float | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number, its confidence interval over resampled stories, and how many stories it rests on."""

    value: Number
    low: Number = None
    high: Number = None
    stories: int = 0


@dataclass(frozen=True, kw_only=True)
class MetricFact:
    """A metric; the texts are those of `benchmark.scoring.Metric`.

    Attributes:
        part: `preset` for the columns of the preset's table, `weight-free` for the rest.
        options: of the function, as text.
        encoders: that it needs and that are missing, empty if it can be computed.
        reason: why it is unavailable and the command that brings it; empty if it can be computed.
    """

    name: str
    title: str
    part: str
    unit: str
    group: str
    higher_is_better: bool | None
    column: str
    source: str
    options: str = ""
    needs: list[str] = field(default_factory=list)
    encoders: list[str] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ShotFact:
    """A shot of the script: `cut` is None where the script does not say."""

    stem: str
    scene: int
    prompt: str
    cut: bool | None
    characters: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StoryFact:
    """A story of the benchmark; `prompts_sha256` is of all its texts.

    `characters_from` says who tells which characters are in which shot: a map, or the tags of the prompts.
    """

    key: str
    source: str
    overview: str | None
    shots: list[ShotFact]
    faults: list[str]
    prompts_sha256: str
    characters_from: str = ""


@dataclass(frozen=True, kw_only=True)
class Video:
    """The video of a shot.

    Attributes:
        path: relative to the folder that the report was made for.
        id: hash of the file, and the range if it is not the whole file.
        start_s: where the shot begins in the file, seconds.
        end_s: where it ends; None for the file's end.
    """

    path: str
    id: str
    frames: int
    fps: float
    height: int
    width: int
    codec: str
    pix_fmt: str
    bitrate: float
    matrix: str
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric of a method.

    Attributes:
        cells: order of aggregation -> number with its interval.
        std: standard deviation of all units.
        coverage: `stories`, `groups`: [defined, all]; `units`: [defined, computed but not finite].
        per_story: order of aggregation -> story -> value; `micro` is `story_pooled` inside a story.
        reason: why there is no number; empty if there is one.
    """

    cells: dict[str, Cell]
    std: Number
    coverage: dict[str, list[int]]
    per_story: dict[str, dict[str, Number]]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class MethodFact:
    """A method.

    Attributes:
        control: made from the first method for calibration, kept out of all comparisons.
        videos: story -> shot -> video.
        missing: a line for each story that lacks shots.
        missing_shots: `story/SS_HH` of each.
        ignored: [file, why] of files that are no shot.
        faults: what is wrong, a line each.
        work: what was done to get its features: videos, decode passes, encoded, reused, seconds.
        scores: metric -> score.
    """

    name: str
    control: bool
    videos: dict[str, dict[str, Video]]
    missing: list[str]
    missing_shots: list[str]
    ignored: list[list[str]]
    faults: list[str]
    work: dict[str, Any]
    scores: dict[str, Score]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First - second on the stories that both have.

    Attributes:
        p: of the sign-flip permutation test, two-sided.
        p_holm: corrected for all comparisons of the same part of the table.
        p_wilcoxon: of Wilcoxon's signed-rank test; None without SciPy.
        detectable: smallest true difference that would have been found with 80 % power.
        wins: stories on which the first is better, ties count half; has the larger value, where neither end
            is better.
    """

    metric: str
    first: str
    second: str
    difference: Cell
    p: Number
    p_holm: Number
    p_wilcoxon: Number
    detectable: Number
    wins: Number


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Probabilities of ranks 1, 2, ... of each method under resampled stories, and the stories used."""

    metric: str
    probabilities: dict[str, list[Number]]
    stories: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A score between chance and the best that is possible; see `benchmark.calibration`."""

    metric: str
    method: str
    score: Number
    floor: Number
    ceiling: Number
    cheat: Number
    calibrated: Number
    won_by_freezing: bool


@dataclass(frozen=True, kw_only=True)
class Split:
    """Similarity of pairs of shots by how they are joined, or by how many shots apart a character returns."""

    method: str
    kind: str
    name: str
    cell: Cell
    pairs: int


@dataclass(frozen=True, kw_only=True)
class ReadingFact:
    """A column of a paper read in one way."""

    metric: str
    order: str
    values: dict[str, Number]
    ranking: list[str]
    flipped: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Ambiguity:
    """All readings of a column, the preset's first; see `benchmark.ambiguity`."""

    column: str
    readings: list[ReadingFact]
    survives: bool
    winner_survives: bool
    spread: dict[str, Number]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Rank correlation of two metrics inside stories, over so many (method, story) cells."""

    first: str
    second: str
    correlation: Number
    cells: int


@dataclass(frozen=True, kw_only=True)
class PromptAudit:
    """What the text tower reads of a story's prompts.

    Attributes:
        shots: shot -> [tokens, read ones, tokens after `shot caption:`, read ones of these]; None without.
        alike: groups of shots whose prompts are the same to the tower.
        distinct: how many different texts the prompts are to it.
        lines: what a reader must know.
    """

    shots: dict[str, list[int | None]]
    scenes: dict[str, list[int | None]]
    overview: list[int | None] | None
    alike: list[list[str]]
    distinct: int
    lines: list[str]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Similarity of all shots of a story with all, of one method; None where a shot is missing."""

    method: str
    stems: list[str]
    values: list[list[Number]]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Similarity of shots to the first one of the same character or scene; None where a shot is missing."""

    name: str
    stems: list[str]
    values: dict[str, list[Number]]


@dataclass(frozen=True, kw_only=True)
class StoryView:
    """What is shown of a story besides its numbers."""

    matrices: list[Matrix]
    drift: list[Drift]


@dataclass(frozen=True, kw_only=True)
class WorstPair:
    """Two shots that should look alike and do not; pictures by id, empty if none was kept."""

    method: str
    story: str
    first: str
    second: str
    why: str
    similarity: float
    pictures: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FairnessRow:
    """How the videos of a method were made, as far as files tell; ranges as text."""

    method: str
    shots: str
    fps: str
    frames: str
    size: str
    codec: str
    bitrate: str
    matrix: str
    prompts: str
    flags: list[str]
    characters: str = ""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """An encoder, or why it is missing."""

    name: str
    sha256: str
    precision: str
    device: str
    missing: str
    random: bool


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that tables and the page show.

    Attributes:
        format: `FORMAT`.
        recipe: hash under which numbers may be compared.
        order: of aggregation of the preset.
        choices: field of the preset -> [its value, other admissible values as text, what the papers say].
        metrics: of the table, then the weight-free ones, in order.
        methods: in the user's order, then the controls.
        differences: of all pairs of methods, controls apart.
        similarity_kind: features that matrices, drift, split and worst pairs are made of; empty if none.
        similarity_floor: mean similarity of shots of different stories; None where it does not exist.
        flags: methods that win by freezing or copying, and other warnings about calibration.
        warnings: what a reader must know before any number.
        pictures: id -> JPEG as base64, and `pictures_left_out` how many did not fit.
    """

    format: str
    recipe: str
    preset: str
    dated: str
    order: str
    choices: dict[str, list[str]]
    metrics: list[MetricFact]
    stories: list[StoryFact]
    methods: list[MethodFact]
    differences: list[Difference]
    ranks: list[Ranks]
    calibration: list[Limits]
    split: list[Split]
    ambiguity: list[Ambiguity]
    agreement: list[Agreement]
    audits: dict[str, PromptAudit]
    views: dict[str, StoryView]
    worst_pairs: list[WorstPair]
    fairness: list[FairnessRow]
    fairness_flags: list[str]
    encoders: list[Encoder]
    certificate: list[str]
    environment: dict[str, str]
    similarity_kind: str = ""
    similarity_floor: Number = None
    flags: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    command: str = ""
    pictures: dict[str, str] = field(default_factory=dict)
    posters: dict[str, str] = field(default_factory=dict)
    pictures_left_out: int = 0

    def metric(self, name: str) -> MetricFact:
        """A metric by name.

        Raises:
            KeyError: no such metric.
        """
        return {metric.name: metric for metric in self.metrics}[name]

    def compared(self) -> list[MethodFact]:
        """The methods without the controls."""
        return [method for method in self.methods if not method.control]

    def columns(self, part: str = MEASURED_COLUMN) -> list[MetricFact]:
        """The metrics of a part of the table."""
        return [metric for metric in self.metrics if metric.part == part]
