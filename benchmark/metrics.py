"""Every metric: what it is, where it is from, what it needs, and the readings of a paper's column.

`METRICS` is the one table. Rows with the same `column` are readings of that column of a paper, the default
first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmark.features import Group
from benchmark.functional import aesthetic, consistency, cuts, semantic, shots
from benchmark.sampling import Every
from benchmark.scoring import Metric
from benchmark.stories import CONTINUATION, CUT, TAGS

SHARE = (0.0, 1.0)
OPEN = (float("-inf"), float("inf"))
POSITIVE = (0.0, float("inf"))

MEMENTO, STORYMEM, HOLOCINE, VBENCH, OURS = "Memento", "StoryMem", "HoloCine", "VBench", "ours"


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def _row(name: str, title: str, function: Callable[..., list[Group]], **fields: Any) -> Metric:
    return Metric(name=name, title=title, function=function, **fields)


def _background(name: str, level: str, every: Every, note: str, **options: Any) -> Metric:
    group = "story" if level == "story" else "scene"
    return _row(
        name,
        "Background",
        consistency.frame_consistency,
        options={"kind": "clip_b32", "level": level, "every": every, **options},
        needs=("clip_b32",),
        group=group,
        column=f"{MEMENTO}: Background",
        source=f"Memento D.2, interval not given; {note}",
    )


def _subject(name: str, level: str, note: str, column: str = f"{MEMENTO}: Subject, intra-shot") -> Metric:
    return _row(
        name,
        "Subject, intra-shot",
        consistency.frame_consistency,
        options={"kind": "dino_b14", "level": level, "every": Every(frames=8), "with_first_frame": True},
        needs=("dino_b14",),
        group=level,
        column=column,
        source=f"Memento D.6 and D.3, interval not given; {note}",
    )


def _inter_shot(name: str, function: Callable[..., list[Group]], note: str, **fields: Any) -> Metric:
    settings: dict[str, Any] = {"needs": ("viclip_24",), "group": "scene", "options": {"kind": "viclip_24"}}
    settings |= {"column": f"{MEMENTO}: Subject, inter-shot", "source": f"Memento D.5; {note}", **fields}
    return _row(name, "Subject, inter-shot", function, **settings)


def _aesthetic(name: str, function: Callable[..., list[Group]], paper: str, note: str, **of: Any) -> Metric:
    return _row(
        name,
        "Aesthetic",
        function,
        options={"stride": 1, **of},
        needs=(of["kind"],),
        group="scene",
        unit="score",
        bounds=OPEN,
        column=f"{paper}: Aesthetic" if paper else "",
        source=note,
    )


def _text(name: str, title: str, function: Callable[..., list[Group]], kind: str, **of: str) -> Metric:
    return _row(
        name,
        title,
        function,
        options={"kind": kind},
        needs=(kind, "text"),
        group="story" if function is semantic.story_text else "scene",
        column=f"{of['paper']}: {title}",
        source=of["source"],
    )


def _vbench(name: str, title: str, kind: str, note: str) -> Metric:
    options = {"kind": kind, "level": "shot", "every": Every(frames=1), "with_first_frame": True}
    return _row(
        name,
        title,
        consistency.frame_consistency,
        options={**options, "clamp": True},
        needs=(kind,),
        group="shot",
        bounds=SHARE,
        column=f"{VBENCH}: {title}",
        source=note,
    )


def _number(name: str, title: str, unit: str, better: bool | None, note: str, **fields: Any) -> Metric:
    kind = f"stat_{name}"
    settings: dict[str, Any] = {"options": {"kind": kind}, "needs": (kind,), "group": "scene"}
    settings |= {"bounds": POSITIVE, "function": shots.shot_number, "source": note, **fields}
    return Metric(name=name, title=title, unit=unit, higher_is_better=better, **settings)


_MLP = {"kind": "aes_mlp_raw", "offset": 1.0, "divisor": 9.0}
_LINEAR = {"kind": "aes_linear_raw", "offset": 0.0, "divisor": 10.0}

METRICS: dict[str, Metric] = _table(
    # -- Memento, Tables 1 and 2 ------------------------------------------------------------------
    _aesthetic(
        "aesthetic", aesthetic.frame_scores, MEMENTO, "Memento D.4: (MLP head - 1) / 9, all frames", **_MLP
    ),
    _aesthetic(
        "aesthetic_mlp_raw",
        aesthetic.frame_scores,
        "",
        "raw MLP head",
        kind="aes_mlp_raw",
        offset=0.0,
        divisor=1.0,
    ),
    _text(
        "semantic_story",
        "Semantic, story",
        semantic.scene_text,
        "viclip_24",
        paper=MEMENTO,
        source="Memento D.1 `global`: per scene, all its prompts joined; the table says story",
    ),
    _text(
        "semantic_story_overview",
        "Semantic, story",
        semantic.story_text,
        "viclip_24",
        paper=MEMENTO,
        source="Memento Table 1 read literally: the whole story and its overview",
    ),
    _text(
        "semantic_shot",
        "Semantic, shot",
        semantic.shot_text,
        "viclip_24",
        paper=MEMENTO,
        source="Memento D.1; frames per shot not given: 24 in three clips",
    ),
    _text(
        "semantic_shot_8_frames",
        "Semantic, shot",
        semantic.shot_text,
        "viclip_8",
        paper=MEMENTO,
        source="Memento D.1; frames per shot not given: 8 in one clip",
    ),
    _background("background", "scene", Every(frames=8), "8 frames, cuts of the scene included"),
    _background("background_interval_1", "scene", Every(frames=1), "every frame"),
    _background("background_interval_4", "scene", Every(frames=4), "4 frames"),
    _background("background_interval_16", "scene", Every(frames=16), "16 frames"),
    _background("background_half_second", "scene", Every(seconds=0.5), "0.5 s, for unequal frame rates"),
    _background("background_video", "story", Every(frames=8), "over the whole story"),
    _background("background_within_shot", "shots_of_scene", Every(frames=8), "no cut included"),
    _background(
        "background_with_first",
        "scene",
        Every(frames=8),
        "with the first frame too, as VBench",
        with_first_frame=True,
    ),
    _subject("subject_intra_shot_scene_level", "scene", "D.6 equates it with the scene level"),
    _subject("subject_intra_shot_true_shot", "shot", "section 4.2.1 says within a shot"),
    _inter_shot("inter_shot_viclip_adjacent", consistency.adjacent_shots, "variant 1, adjacent shots"),
    _inter_shot(
        "inter_shot_dino_adjacent",
        consistency.adjacent_shots,
        "variant 2, mean DINOv2 features of adjacent shots",
        options={"kind": "dino_b14", "every": Every(frames=8)},
        needs=("dino_b14",),
    ),
    _inter_shot(
        "inter_shot_character_grouped",
        consistency.character_shots,
        "variant 3, all pairs of shots of a character; all tags",
        options={"kind": "viclip_24", "tags": TAGS},
        group="character",
    ),
    _inter_shot(
        "inter_shot_character_grouped_person_only",
        consistency.character_shots,
        "variant 3 as written: [Person X] only, which misses protagonists that are animals",
        options={"kind": "viclip_24", "tags": ("Person",)},
        group="character",
    ),
    _row(
        "inter_scene",
        "Subject, inter-scene",
        consistency.adjacent_scenes,
        options={"kind": "viclip_24"},
        needs=("viclip_24",),
        group="story",
        column=f"{MEMENTO}: Subject, inter-scene",
        source="Memento D.7: adjacent scenes",
    ),
    # -- StoryMem, Tables 1 and 2 -----------------------------------------------------------------
    _aesthetic(
        "storymem_aesthetic_videos",
        aesthetic.shot_scores,
        STORYMEM,
        "StoryMem, as in VBench: linear head / 10, mean of each shot, then of shots",
        **_LINEAR,
    ),
    _aesthetic(
        "storymem_aesthetic_frames",
        aesthetic.frame_scores,
        STORYMEM,
        "linear head / 10, every frame alike",
        **_LINEAR,
    ),
    _text(
        "storymem_global",
        "Prompt following, global",
        semantic.story_text,
        "viclip_8",
        paper=STORYMEM,
        source="StoryMem: the whole video and story_overview; 8 frames as in VBench, not stated",
    ),
    _text(
        "storymem_global_24_frames",
        "Prompt following, global",
        semantic.story_text,
        "viclip_24",
        paper=STORYMEM,
        source="StoryMem: the same from three clips",
    ),
    _text(
        "storymem_single_shot",
        "Prompt following, single shot",
        semantic.shot_text,
        "viclip_8",
        paper=STORYMEM,
        source="StoryMem: 8 frames of each shot and its prompt",
    ),
    _row(
        "storymem_cross_shot_overall",
        "Cross-shot, overall",
        consistency.all_shots,
        options={"kind": "viclip_8"},
        needs=("viclip_8",),
        group="story",
        column=f"{STORYMEM}: Cross-shot, overall",
        source="StoryMem: all pairs of shots of a story",
    ),
    _row(
        "storymem_cross_shot_top10",
        "Cross-shot, top 10",
        consistency.most_alike_prompts,
        options={"kind": "viclip_8", "count": 10, "share": None},
        needs=("viclip_8", "text"),
        group="story",
        column=f"{STORYMEM}: Cross-shot, top 10",
        source="StoryMem: the ten pairs with the most alike prompts; per story or overall not stated",
    ),
    _row(
        "storymem_cross_shot_top_quarter",
        "Cross-shot, top 25 %",
        consistency.most_alike_prompts,
        options={"kind": "viclip_8", "count": None, "share": 0.25},
        needs=("viclip_8", "text"),
        group="story",
        column=f"{STORYMEM}: Cross-shot, top 10",
        source="ours: ten pairs are not the same part of every story, a quarter is",
    ),
    # -- VBench and HoloCine ----------------------------------------------------------------------
    _vbench(
        "vbench_subject",
        "Subject consistency",
        "dino_b14",
        "VBench: every frame, cosine with the frame before and the first, clamped at 0; its encoder is DINO "
        "B/16, ours the one the recipe names",
    ),
    _vbench(
        "vbench_background",
        "Background consistency",
        "clip_b32",
        "VBench: the same with CLIP B/32; here in float64, there in float16 on a GPU",
    ),
    _row(
        "holocine_sca",
        "Shot cut accuracy",
        cuts.scene_cut_accuracy,
        options={"penalty": "mean_shot"},
        needs=("stat_inner_cuts", "stat_boundary_cut"),
        group="scene",
        unit="score",
        bounds=SHARE,
        column=f"{HOLOCINE}: Shot cut accuracy",
        source="HoloCine; the penalty of a missed or extra cut is not given: the mean shot length",
    ),
    _row(
        "holocine_sca_video_penalty",
        "Shot cut accuracy",
        cuts.scene_cut_accuracy,
        options={"penalty": "video"},
        needs=("stat_inner_cuts", "stat_boundary_cut"),
        group="scene",
        unit="score",
        bounds=SHARE,
        column=f"{HOLOCINE}: Shot cut accuracy",
        source="HoloCine; the penalty is not given: the whole video",
    ),
    # -- how shots are joined ---------------------------------------------------------------------
    _inter_shot(
        "inter_shot_continuations",
        consistency.adjacent_shots,
        "ours: only pairs joined by a continuation, which are easy points",
        options={"kind": "viclip_24", "joined_by": (CONTINUATION,)},
        column="",
    ),
    _inter_shot(
        "inter_shot_cuts",
        consistency.adjacent_shots,
        "ours: only pairs joined by a cut",
        options={"kind": "viclip_24", "joined_by": (CUT,)},
        column="",
    ),
    _inter_shot(
        "inter_shot_scene_changes",
        consistency.scene_changes,
        "ours: last shot of a scene and first of the next",
        group="story",
        column="",
    ),
    # -- weight-free ------------------------------------------------------------------------------
    _row(
        "cut_accuracy",
        "Cuts as scripted",
        cuts.boundary_agreement,
        needs=("stat_boundary_cut",),
        group="story",
        unit="share of boundaries",
        bounds=SHARE,
        source="ours: cut or continuation between shots, as the script says",
    ),
    _number(
        "duplicate_boundaries",
        "Repeated boundary frames",
        "share of boundaries",
        False,
        "ours: the first frame of a shot repeats the last of the one before (mean difference < 1.5 / 255)",
        function=shots.boundary_below,
        options={"kind": "stat_boundary_difference", "threshold": 1.5},
        needs=("stat_boundary_difference",),
        group="story",
        bounds=SHARE,
    ),
    _number("inner_cuts", "Cuts inside shots", "cuts per shot", False, "ours", function=shots.shot_count),
    _number("flicker", "Flicker", "/255", False, "ours: see benchmark.weight_free"),
    _number(
        "freeze", "Frozen", "share of frame steps", False, "ours: see benchmark.weight_free", bounds=SHARE
    ),
    _number("sharpness", "Sharpness", "(/255)^2", None, "ours: see benchmark.weight_free"),
    _number("motion", "Motion", "% of width per second", None, "ours: see benchmark.weight_free"),
    _number("luma", "Exposure", "share of white", None, "ours: see benchmark.weight_free", bounds=SHARE),
    _number("clipped", "Clipped", "share of pixels", False, "ours: see benchmark.weight_free", bounds=SHARE),
    _number("duration_s", "Duration", "s", None, "ours: frames / rate of each shot"),
)


def readings(column: str) -> list[Metric]:
    """Every admissible reading of a paper's column, the default first."""
    return [metric for metric in METRICS.values() if metric.column == column]


def columns() -> list[str]:
    """The papers' columns that there are readings of."""
    return list(dict.fromkeys(metric.column for metric in METRICS.values() if metric.column))
