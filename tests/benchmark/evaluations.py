"""Evaluations made for tests: random features that are smooth in time and alike where they should be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from benchmark.evaluation import EncoderFact, Evaluation, MethodResult, Work
from benchmark.features import FeatureTable
from benchmark.presets import all_readings, preset, recipe
from benchmark.prompts import audit
from benchmark.scoring import score
from benchmark.submission import Clip, Submission, VideoFacts, missing_shots

WIDTHS = {"clip_b32": 32, "dino_b14": 32, "viclip": 16}
ENCODERS = ("viclip-b16", "clip-b32", "clip-l14", "dinov2-b14", "aes-mlp", "aes-linear")
MISSING = "not found: memento weights pull "


def direction(*names, width=16):
    """A repeatable random direction for a name."""
    seed = [sum(ord(c) * 31**i for i, c in enumerate(str(name))) % 2**31 for name in names]
    return np.random.default_rng(seed).normal(size=width)


def learned(stories, clips, *, method, spread=0.5, seed=0, widths=WIDTHS):
    """Features of the learned kinds: {(story, unit, kind): array}.

    Args:
        stories: by key.
        clips: story -> shot -> number of frames, of the shots that exist.
        method: its name: methods have features of their own.
        spread: how far shots of a story lie apart.
    """
    rng, found = np.random.default_rng([seed, len(method)]), {}
    for story in stories.values():
        parts: dict = {}
        for shot in story.shots:
            frames = clips.get(story.key, {}).get(shot.key, 0)
            for kind in ("clip_b32", "dino_b14", "viclip"):
                text, own = _centres(kind, story.key, shot.key, method, spread, widths[kind])
                if kind == "viclip":
                    noise = rng.normal(size=widths[kind])
                    found[story.key, tuple(shot.key), "text"] = 0.4 * text + noise
                if frames:
                    rows = own + np.cumsum(rng.normal(size=(frames, widths[kind])), axis=0) * 0.04
                    _put(found, story.key, shot.key, kind, rows, parts)
            for kind, middle in (("aes_mlp_raw", 5.4), ("aes_linear_raw", 6.0)) if frames else ():
                level = middle + 0.3 * direction(method, story.key, shot.key.stem, kind, width=1)[0]
                found[story.key, tuple(shot.key), kind] = level + rng.normal(size=frames) * 0.05
        _joined(found, story, parts)
    return found


def _centres(kind, story, shot, method, spread, width):
    """What a text means, and around what the frames of its shot lie."""
    base = 1.2 * direction(kind, width=width) + direction(kind, story, width=width)
    base = base + 0.6 * direction(kind, story, shot.scene, width=width)
    text = base + 0.7 * direction(kind, story, shot.stem, width=width)
    return text, text + spread * direction(kind, method, story, shot.stem, width=width)


def _put(found, story, shot, kind, rows, parts):
    if kind != "viclip":
        found[story, tuple(shot), kind] = rows
        return
    clips = rows[np.linspace(0, len(rows) - 1, 3).astype(int)]
    found[story, tuple(shot), "viclip_24"], found[story, tuple(shot), "viclip_8"] = clips, clips[1]
    parts.setdefault(shot.scene, []).append(clips)


def _joined(found, story, parts):
    """Features of scenes and of the story from those of their shots."""
    for number, rows in parts.items():
        found[story.key, (number,), "viclip_24"] = np.concatenate(rows)
        found[story.key, (number,), "viclip_8"] = rows[0][1]
    for scene in story.scenes:
        texts = [found[story.key, tuple(shot.key), "text"] for shot in scene.shots]
        found[story.key, (scene.number,), "text"] = np.mean(texts, axis=0)
    if parts:
        together = np.concatenate([rows for each in parts.values() for rows in each])
        found[story.key, (), "viclip_24"], found[story.key, (), "viclip_8"] = together, together[1]
    texts = [found[story.key, (scene.number,), "text"] for scene in story.scenes]
    found[story.key, (), "text"] = np.mean(texts, axis=0)


def free(stories, clips, *, motion=4.0, freeze=0.0):
    """Weight-free numbers without any video."""
    found = {}
    for story in stories.values():
        for shot in story.shots:
            if shot.key not in clips.get(story.key, {}):
                continue
            wobble = 1 + 0.2 * direction(story.key, shot.key.stem, width=1)[0]
            numbers = {
                "luma": 0.45 * wobble,
                "clipped": 0.01 * wobble**2,
                "sharpness": 300 * wobble,
                "flicker": 0.002 * wobble,
                "freeze": freeze,
                "motion": abs(motion * wobble),
                "duration_s": 5.0625,
            }
            unit = tuple(shot.key)
            found |= {(story.key, unit, f"stat_{name}"): np.asarray(v) for name, v in numbers.items()}
            found[story.key, unit, "stat_inner_cuts"] = np.zeros(0, np.int64)
        for pair in [*story.adjacent_shots(), *story.scene_changes()]:
            if (story.key, tuple(pair.second), "stat_luma") in found:
                unit = tuple(pair.second)
                found[story.key, unit, "stat_boundary_cut"] = np.asarray(float(pair.kind != "continuation"))
                found[story.key, unit, "stat_boundary_difference"] = np.asarray(9.0)
    return found


def facts(name, *, frames=81, fps=16.0, bitrate=5e6, size=(480, 832), matrix="untagged"):
    """What a video is, without any."""
    return VideoFacts(
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        frames=frames,
        fps=fps,
        height=size[0],
        width=size[1],
        codec="h264",
        pix_fmt="yuv420p",
        bitrate=bitrate,
        duration_s=frames / fps,
        matrix=matrix,
    )


def result(
    name,
    stories,
    *,
    chosen,
    made,
    frames=17,
    absent=(),
    weights=True,
    folder=Path("videos"),
    clips=None,
    **of,
):
    """A method; `of` goes to `facts`, `spread`, `motion` and `freeze` to the features."""
    features = {key: of.pop(key) for key in ("spread", "seed") if key in of}
    numbers = {key: of.pop(key) for key in ("motion", "freeze") if key in of}
    if clips is None:
        clips = {
            key: {
                shot.key: Clip(
                    path=folder / name / key / f"{shot.key.stem}.mp4",
                    facts=facts(f"{name}/{key}/{shot.key.stem}", frames=frames, **of),
                )
                for shot in story.shots
                if f"{key}/{shot.key.stem}" not in absent
            }
            for key, story in stories.items()
        }
    lengths = {key: {shot: c.num_frames for shot, c in each.items()} for key, each in clips.items()}
    arrays = free(stories, lengths, **numbers)
    if weights:
        arrays |= learned(stories, lengths, method=name, **features)
    counted = {(key, tuple(shot)): n for key, each in lengths.items() for shot, n in each.items()}
    rates = {
        (key, tuple(shot)): c.facts.fps for key, each in clips.items() for shot, c in each.items() if c.facts
    }
    store = FeatureTable(arrays, counted, rates)
    return MethodResult(
        submission=Submission(method=name, clips=clips, missing=missing_shots(clips, stories)),
        scores=score(all_readings(chosen), stories, store, recipe=made),
        store=store,
        work=Work(videos=sum(map(len, clips.values())), decode_passes=1, seconds={"decode": 1.5}),
    )


def evaluation(stories, methods, *, name="memento", weights=True, random=True, frames=17, **changes):
    """An evaluation of made methods: name -> arguments of `result`."""
    chosen = preset(name, **changes)
    made = recipe(chosen, prompts=[shot.prompt for s in stories.values() for shot in s.shots])
    results = tuple(
        result(n, stories, chosen=chosen, made=made, weights=weights, **{"frames": frames, **of})
        for n, of in methods.items()
    )
    return Evaluation(
        preset=chosen,
        recipe=made,
        stories=stories,
        methods=results,
        encoders=tuple(
            EncoderFact(name=e, random=random and weights, missing="" if weights else MISSING + e)
            for e in ENCODERS
        ),
        audits={key: audit(story, str.split) for key, story in stories.items()} if weights else {},
        certificate=("viclip-b16: largest difference from golden vectors 3.1e-06",) if weights else (),
        environment={"numpy": np.__version__, "device": "cpu", "colour matrix": "bt601 where untagged"},
        command="memento eval --preset memento a=a b=b",
    )
