"""Presets: how a paper's table, or ours, is made. Every choice that a paper leaves open is a named field.

A preset gives the metrics of its columns (`metrics_of`), and together with the encoders' weights and the
prompts the hash under which scores may be put in one table (`recipe`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmark.aggregate import MACRO, recipe_hash
from benchmark.metrics import METRICS, readings
from benchmark.sampling import Every
from benchmark.scoring import Metric

VERSION = 1
"""Changes whenever the arithmetic of a metric does, so that old scores no longer merge with new ones."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a field of a preset may be, and where that is from. The field's value is the default.

    Attributes:
        admissible: readings of the papers that could be meant; empty where any value of the type may be.
        source: what the papers say.
        about: `metric` changes which numbers are computed, `encoder` which features.
    """

    admissible: tuple[Any, ...] = ()
    source: str
    about: str


CHOICES: dict[str, Choice] = {
    "viclip": Choice(
        admissible=("viclip-b16", "viclip-l14"),
        source="Memento names B/16; StoryMem names no checkpoint, VBench uses L/14",
        about="encoder",
    ),
    "viclip_pixels": Choice(
        admissible=("squash-imagenet", "vbench-crop-clip", "demo-squash-imagenet", "squash-clip"),
        source="no paper says; training squashes and uses ImageNet statistics, VBench crops and uses CLIP's",
        about="encoder",
    ),
    "sampler": Choice(
        admissible=("mid", "lin", "step"),
        source="papers say `uniformly`; `lin` takes first and last frames, which continuations repeat",
        about="encoder",
    ),
    "crop": Choice(
        admissible=("center", "squash", "full"),
        source="papers do not say; a centre crop keeps 58 % (CLIP) or 44 % (DINOv2) of an 832 x 480 frame",
        about="encoder",
    ),
    "text_mode": Choice(
        admissible=("truncate", "windows", "shot-part"),
        source="ViCLIP reads 30 tokens; neither paper mentions that nearly all prompts are longer",
        about="encoder",
    ),
    "prompts": Choice(
        admissible=("original", "rewritten"),
        source="Memento does not say whether other methods are scored against its rewritten prompts",
        about="encoder",
    ),
    "scene_joiner": Choice(
        admissible=(" ", "\n", ""), source="Memento D.1 joins prompts, by what is not said", about="encoder"
    ),
    "aesthetic": Choice(
        admissible=("aesthetic", "storymem_aesthetic_videos", "storymem_aesthetic_frames"),
        source="Memento: MLP head; StoryMem: linear head as in VBench",
        about="metric",
    ),
    "aesthetic_stride": Choice(
        source="both papers: all frames; a stride of 4 costs a quarter", about="metric"
    ),
    "semantic_story": Choice(
        admissible=("semantic_story", "semantic_story_overview"),
        source="Memento: scene and joined prompts in D.1, `story` in Table 1",
        about="metric",
    ),
    "semantic_shot": Choice(
        admissible=("semantic_shot", "semantic_shot_8_frames"),
        source="Memento D.1: frames per shot not given",
        about="metric",
    ),
    "background": Choice(
        admissible=(
            "background",
            "background_interval_1",
            "background_interval_4",
            "background_interval_16",
            "background_half_second",
            "background_video",
            "background_within_shot",
            "background_with_first",
        ),
        source="Memento D.2: two levels, one column; interval not given",
        about="metric",
    ),
    "subject_intra_shot": Choice(
        admissible=("subject_intra_shot_scene_level", "subject_intra_shot_true_shot"),
        source="Memento 4.2.1: within a shot; D.6: the scene level",
        about="metric",
    ),
    "interval": Choice(
        source="frames or seconds between sampled frames; Memento names constants without their values",
        about="metric",
    ),
    "inter_shot": Choice(
        admissible=(
            "inter_shot_viclip_adjacent",
            "inter_shot_dino_adjacent",
            "inter_shot_character_grouped",
            "inter_shot_character_grouped_person_only",
        ),
        source="Memento D.5 has three variants and does not say which one the table shows",
        about="metric",
    ),
    "top_pairs": Choice(
        admissible=("storymem_cross_shot_top10", "storymem_cross_shot_top_quarter"),
        source="StoryMem: ten pairs, per story or overall not said",
        about="metric",
    ),
    "cut_penalty": Choice(
        admissible=("mean_shot", "half_mean_shot", "video"),
        source="HoloCine does not give the penalty of a missed or extra cut",
        about="metric",
    ),
    "order": Choice(
        admissible=("macro", "story_pooled", "micro"),
        source="no paper says whether every story or every pair weighs the same",
        about="metric",
    ),
    "strict_missing": Choice(
        admissible=(False, True),
        source="no paper has missing shots; strict: a scene without all its shots has no value",
        about="metric",
    ),
    "precision": Choice(
        admissible=("fp32", "bf16", "fp16"),
        source="not stated; other precisions are another recipe",
        about="encoder",
    ),
}


def _interval(text: str) -> Every | None:
    if not text:
        return None
    try:
        return Every(seconds=float(text[:-1])) if text.endswith("s") else Every(frames=int(text))
    except ValueError as error:
        raise ValueError(f"interval {text!r}: give frames such as '8' or seconds such as '0.5s'") from error


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a table is made. Each field but `name`, `dated` and `columns` is explained in `CHOICES`.

    Attributes:
        name: of the preset.
        dated: of the paper's or tool's state that it follows.
        columns: names of fields, or of metrics, whose numbers make the table.
        interval: frames, or seconds where it ends with `s`: 8 or "0.5s"; "" leaves the metrics' own.
    """

    name: str
    dated: str
    columns: tuple[str, ...]
    viclip: str = "viclip-b16"
    viclip_pixels: str = "squash-imagenet"
    sampler: str = "mid"
    crop: str = "center"
    text_mode: str = "truncate"
    prompts: str = "original"
    scene_joiner: str = " "
    aesthetic: str = "aesthetic"
    aesthetic_stride: int = 1
    semantic_story: str = "semantic_story"
    semantic_shot: str = "semantic_shot"
    background: str = "background"
    subject_intra_shot: str = "subject_intra_shot_scene_level"
    interval: str = ""
    inter_shot: str = "inter_shot_viclip_adjacent"
    top_pairs: str = "storymem_cross_shot_top10"
    cut_penalty: str = "mean_shot"
    order: str = MACRO
    strict_missing: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for name, choice in CHOICES.items():
            value = getattr(self, name)
            if choice.admissible and value not in choice.admissible:
                shown = ", ".join(map(repr, choice.admissible))
                raise ValueError(f"preset {self.name}: {name} cannot be {value!r}: use one of {shown}")
        if self.aesthetic_stride < 1:
            raise ValueError(f"preset {self.name}: aesthetic_stride must be at least 1")
        if unknown := [c for c in self.columns if c not in METRICS and c not in CHOICES]:
            raise ValueError(f"preset {self.name}: no metric is called {', '.join(unknown)}")
        _interval(self.interval)


WEIGHT_FREE = (
    "cut_accuracy",
    "inner_cuts",
    "duplicate_boundaries",
    "flicker",
    "freeze",
    "sharpness",
    "motion",
    "luma",
    "clipped",
    "duration_s",
)
_MEMENTO_COLUMNS = (
    "aesthetic",
    "semantic_story",
    "semantic_shot",
    "background",
    "subject_intra_shot",
    "inter_shot",
    "inter_scene",
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(name="memento", dated="Tables 1 and 2, appendix D", columns=_MEMENTO_COLUMNS),
        Preset(
            name="storymem",
            dated="Tables 1 and 2",
            columns=(
                "aesthetic",
                "storymem_global",
                "storymem_single_shot",
                "storymem_cross_shot_overall",
                "top_pairs",
            ),
            viclip="viclip-l14",
            viclip_pixels="vbench-crop-clip",
            aesthetic="storymem_aesthetic_videos",
        ),
        Preset(
            name="vbench",
            dated="0.1.5, after 2024-11-29 (antialias off)",
            columns=("vbench_subject", "vbench_background", "aesthetic"),
            viclip="viclip-l14",
            viclip_pixels="vbench-crop-clip",
            aesthetic="storymem_aesthetic_videos",
        ),
        Preset(
            name="holocine",
            dated="the paper; there is no code",
            columns=("aesthetic", "subject_intra_shot", "inter_shot", "holocine_sca"),
            subject_intra_shot="subject_intra_shot_true_shot",
            inter_shot="inter_shot_character_grouped",
        ),
        Preset(
            name="ours",
            dated="",
            columns=(
                *_MEMENTO_COLUMNS,
                "subject_intra_shot_true_shot",
                "inter_shot_continuations",
                "inter_shot_cuts",
                "inter_shot_scene_changes",
                "storymem_cross_shot_overall",
                "holocine_sca",
            ),
            crop="full",
            text_mode="windows",
            interval="0.5s",
        ),
    )
}


def preset(name: str, **changes: Any) -> Preset:
    """A preset by name, with other values for some of its fields.

    Raises:
        ValueError: no such preset, field, or value of it.
    """
    if name not in PRESETS:
        raise ValueError(f"{name!r} is no preset: use {', '.join(PRESETS)}")
    if unknown := sorted(changes.keys() - CHOICES.keys()):
        raise ValueError(f"a preset has no choice {', '.join(unknown)}; there are {', '.join(CHOICES)}")
    return replace(PRESETS[name], **changes)


def metrics_of(chosen: Preset, *, weight_free: bool = True) -> list[Metric]:
    """The metrics of a preset's columns in their order, then the weight-free ones."""
    names = [getattr(chosen, column) if column in CHOICES else column for column in chosen.columns]
    names += WEIGHT_FREE if weight_free else ()
    return [_with_choices(METRICS[name], chosen) for name in dict.fromkeys(names)]


def all_readings(chosen: Preset) -> list[Metric]:
    """The metrics of a preset, then every other reading of their columns, under the same choices."""
    chosen_metrics = metrics_of(chosen)
    columns = dict.fromkeys(metric.column for metric in chosen_metrics if metric.column)
    others = {metric.name: metric for column in columns for metric in readings(column)}
    for metric in chosen_metrics:
        others.pop(metric.name, None)
    return [*chosen_metrics, *(_with_choices(metric, chosen) for metric in others.values())]


def recipe(
    chosen: Preset,
    *,
    weights: Mapping[str, str] | None = None,
    prompts: Sequence[str] = (),
    characters: Mapping[str, Any] | None = None,
) -> str:
    """Hash of all that decides the numbers but the videos.

    The order of aggregation is not part of it: scores keep every value and can be summed up in any order.

    Args:
        chosen: the preset.
        weights: encoder -> SHA-256 of its file, for each encoder that is used.
        prompts: all texts that videos are compared with, in order.
        characters: who is in which shot of the stories for which a map says it (`characters.mapped`).
    """
    parts = [[metric.name, _plain(metric.options)] for metric in metrics_of(chosen)]
    plain = {name: value for name, value in asdict(chosen).items() if name not in ("name", "dated", "order")}
    return recipe_hash(
        {
            "version": VERSION,
            "preset": _plain(plain),
            "metrics": parts,
            "weights": dict(weights or {}),
            "prompts": list(prompts),
            **({"characters": characters} if characters else {}),
        }
    )


def open_choices(chosen: Preset) -> list[tuple[str, Any, tuple[Any, ...], str]]:
    """(field, value, other admissible values, source) of every choice that the papers leave open."""
    return [
        (name, value, tuple(v for v in choice.admissible if v != value), choice.source)
        for name, choice in CHOICES.items()
        for value in [getattr(chosen, name)]
    ]


def _with_choices(metric: Metric, chosen: Preset) -> Metric:
    changes: dict[str, Any] = {}
    if chosen.interval and metric.name in _INTERVAL_METRICS:
        changes["every"] = _interval(chosen.interval)
    if "stride" in metric.options:
        changes["stride"] = chosen.aesthetic_stride
    if metric.name == "holocine_sca":
        changes["penalty"] = chosen.cut_penalty
    return metric.with_options(**changes) if changes else metric


_INTERVAL_METRICS = (
    "background",
    "background_video",
    "background_within_shot",
    "background_with_first",
    "subject_intra_shot_scene_level",
    "subject_intra_shot_true_shot",
    "inter_shot_dino_adjacent",
)
"""Whose interval no name fixes."""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
