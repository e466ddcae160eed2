"""Encodes what a cache lacks: in a plain loop or with Ray Data, the same bytes either way.

Every file is written when it is complete, so a run that was stopped goes on where it was: only the clip or
the group of prompts in work is encoded again.
"""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memento_model.codecs.codec import Codec
from memento_model.codecs.text import TextEncoder
from memento_model.conditioning import given_frames
from memento_model.config import FrameGrid
from memento_model.errors import DataError
from memento_model.training import cache_files as files
from memento_model.training.cache_encoders import Encoders, pick_device
from memento_model.training.cache_files import FRAME, GIVEN, SHOT, CacheKey, Damaged, Shard
from memento_model.training.cache_plan import CachePlan, ClipNeeds
from memento_model.training.clip_frames import read_frames, to_model_range

PROMPTS_PER_FILE = 32
IMAGES_AT_ONCE = 16
"""Single frames in one batch on a GPU; on a CPU each goes alone."""
GREY = "grey"
Progress = Callable[[str, int, int], None]
"""Called with what is encoded, units done and units in all."""


@dataclass(frozen=True)
class Job:
    """Work that ends in one file: a clip's latents, a group of prompts, or the grey constants.

    Attributes:
        name: of the content; the file follows from it.
        needs: of a clip.
        prompts: of a group.
    """

    name: str
    needs: ClipNeeds | None = None
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What became of a job.

    Attributes:
        name: of the job.
        num_bytes: of its file.
        fault: what is wrong with the clip; nothing was written.
        stop: why nothing more can be written.
    """

    name: str
    num_bytes: int = 0
    fault: str | None = None
    stop: str | None = None


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a filled cache holds for a run.

    Attributes:
        made_clips, made_prompts: encoded now.
        reused_clips, reused_prompts: were there.
        num_bytes: of all files that the run reads.
        mended: a line for each damaged or foreign file that was made again.
        faults: a line for each clip that cannot be encoded.
        bad_paths: files of those clips.
    """

    made_clips: int
    made_prompts: int
    reused_clips: int
    reused_prompts: int
    num_bytes: int
    mended: tuple[str, ...]
    faults: tuple[str, ...]
    bad_paths: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class FillOptions:
    """How the work is done.

    Attributes:
        on_ray: with Ray Data, on the cluster that is connected.
        workers: Ray actors; None is one per GPU of the cluster, or per CPU where it has none.
        device: `cuda` or `cpu`; None takes CUDA where there is one.
        verify: read every byte of what is there already, not only the headers.
    """

    on_ray: bool = False
    workers: int | None = None
    device: str | None = None
    verify: bool = False


def fill(
    folder: Path,
    plan: CachePlan,
    key: CacheKey,
    encoders: Encoders,
    options: FillOptions | None = None,
    progress: Progress | None = None,
) -> Filled:
    """Encode what is missing.

    Args:
        folder: of the cache.
        plan: what the run reads.
        key: of the encoders.
        encoders: loaded only if something is missing, and one after the other: text, then video.
        options: where the work is done.
        progress: told after every file.

    Raises:
        DataError: a video cannot be read, or the disk is full.
    """
    options, progress = options or FillOptions(), progress or (lambda *_: None)
    contents = files.digests(folder, plan.clips)
    mended: list[str] = []
    texts = _text_jobs(folder, plan, key, options, mended)
    clips = _clip_jobs(folder, plan, contents, key, options, mended)
    faults: dict[str, str] = {}
    for what, jobs in (("text", texts), ("video", clips)):
        number, total = 0, sum(job.name != GREY for job in jobs)  # grey is no clip of anybody
        for done in _run(jobs, folder, key, encoders, options):
            if done.stop:
                raise DataError(done.stop)
            if done.fault:
                faults[done.name] = done.fault
            if done.name != GREY:
                number += 1
                progress(what, number, total)
    bad = frozenset(path for path, content in contents.items() if content in faults)
    kept = {files.clip_path(folder, key, contents[p]) for p in plan.clips if p not in bad}
    index, _ = files.text_index(folder, key)
    kept |= {index[files.prompt_name(p)].path for p in plan.prompts} | {files.grey_path(folder, key)}
    made_prompts, made_clips = sum(len(j.prompts) for j in texts), sum(j.needs is not None for j in clips)
    return Filled(
        made_clips=made_clips - len(faults),
        made_prompts=made_prompts,
        reused_clips=len(set(contents.values())) - made_clips,
        reused_prompts=len(plan.prompts) - made_prompts,
        num_bytes=sum(path.stat().st_size for path in kept),
        mended=tuple(mended),
        faults=tuple(f"{plan.clips[path].clip_id}: {faults[contents[path]]}" for path in sorted(bad)),
        bad_paths=bad,
    )


# -- what is missing ----------------------------------------------------------------------------


def _text_jobs(
    folder: Path, plan: CachePlan, key: CacheKey, options: FillOptions, mended: list[str]
) -> list[Job]:
    index, faults = files.text_index(folder, key)
    for shard in {s.path: s for s in index.values()}.values() if options.verify else ():
        try:
            shard.verify()
        except Damaged as error:
            faults.append(error)
    for damage in faults:
        mended.append(str(damage))
        damage.path.unlink()
    broken = {damage.path for damage in faults}
    there = {name for name, shard in index.items() if shard.path not in broken}
    missing = [p for p in plan.prompts if files.prompt_name(p) not in there]
    groups = [tuple(missing[i : i + PROMPTS_PER_FILE]) for i in range(0, len(missing), PROMPTS_PER_FILE)]
    return [Job(files.prompt_name("\0".join(group)), prompts=group) for group in groups]


def _clip_jobs(
    folder: Path,
    plan: CachePlan,
    contents: dict[str, str],
    key: CacheKey,
    options: FillOptions,
    mended: list[str],
) -> list[Job]:
    needs: dict[str, ClipNeeds] = {}
    for path, wanted in plan.clips.items():
        before = needs.get(contents[path], wanted)  # two files may be the same
        needs[contents[path]] = ClipNeeds(
            before.clip_id,
            before.path,
            before.shot or wanted.shot,
            tuple(sorted({*before.frames, *wanted.frames})),
        )
    jobs = []
    wanted_files = [(GREY, files.grey_path(folder, key), {files.GREY_VIDEO, files.GREY_FRAME})]
    wanted_files += [(n, files.clip_path(folder, key, n), need.names) for n, need in needs.items()]
    for name, file, names in wanted_files:
        if not names <= _kept(file, key, name, options, mended):
            jobs.append(Job(name, needs=needs.get(name)))
    return jobs


def _kept(path: Path, key: CacheKey, name: str, options: FillOptions, mended: list[str]) -> set[str]:
    try:
        shard = Shard.open(path, key.latents, name)
        if options.verify:
            shard.verify()
    except FileNotFoundError:
        return set()
    except Damaged as error:
        mended.append(str(error))
        path.unlink()
        return set()
    return set(shard.checksums)


# -- doing it -----------------------------------------------------------------------------------


def _run(
    jobs: Sequence[Job], folder: Path, key: CacheKey, encoders: Encoders, options: FillOptions
) -> Iterator[Done]:
    if not jobs:
        return
    if not options.on_ray:
        worker = CacheWorker(folder, key, encoders, options.device)
        yield from map(worker, jobs)
        return
    import ray

    worker_class: Any = RayWorker

    has = ray.cluster_resources()
    gpus = int(has.get("GPU", 0)) if options.device != "cpu" else 0
    workers = options.workers or gpus or int(has.get("CPU", 1))
    packed = [{"job": pickle.dumps(job)} for job in jobs]
    made = ray.data.from_items(packed, override_num_blocks=min(len(packed), 1000)).map(
        worker_class,
        fn_constructor_args=(str(folder.absolute()), key, encoders, options.device),
        num_cpus=1,
        num_gpus=1 if gpus else None,
        concurrency=min(workers, len(jobs)),
    )
    for row in made.iter_rows():
        yield pickle.loads(row["done"])


class CacheWorker:
    """Encodes and writes, one job at a time; loads an encoder with the first job that needs it.

    Args:
        folder: of the cache.
        key: of the encoders.
        encoders: what to load.
        device: where to; None takes CUDA where there is one.
    """

    def __init__(self, folder: Path, key: CacheKey, encoders: Encoders, device: str | None = None) -> None:
        self._folder, self._key, self._encoders = folder, key, encoders
        self._device = pick_device(device)

    @cached_property
    def _codec(self) -> Codec:
        return self._encoders.codec(self._device)

    @cached_property
    def _text(self) -> TextEncoder:
        return self._encoders.text(self._device)

    def __call__(self, job: Job) -> Done:
        """Do one job."""
        try:
            if job.needs is not None:
                return Done(job.name, self._clip(job.name, job.needs))
            if job.prompts:
                return Done(job.name, self._prompts(job))
            return Done(job.name, self._grey())
        except DataError as error:
            return Done(job.name, fault=str(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return Done(job.name, stop=_disk_full(self._folder))

    def _stored(self, value: Tensor) -> Tensor:
        return value.to("cpu", files.DTYPES[self._key.dtype]).contiguous()

    def _prompts(self, job: Job) -> int:
        rows = self._text.encode(job.prompts)
        tensors = {files.prompt_name(p): self._stored(row) for p, row in zip(job.prompts, rows, strict=True)}
        path = files.text_folder(self._folder, self._key) / f"{job.name}.safetensors"
        return files.write_shard(path, tensors, self._key.texts, job.name)

    def _grey(self) -> int:
        grey = self._codec.grey(self._key.grid)
        tensors = {
            files.GREY_VIDEO: self._stored(grey.video_cfhw),
            files.GREY_FRAME: self._stored(grey.frame_cfhw),
        }
        return files.write_shard(files.grey_path(self._folder, self._key), tensors, self._key.latents, GREY)

    def _clip(self, name: str, needs: ClipNeeds) -> int:
        """What is there stays; only the rest is decoded and encoded."""
        path = files.clip_path(self._folder, self._key, name)
        try:
            shard = Shard.open(path, self._key.latents, name)
            tensors = {kept: shard.read(kept) for kept in shard.checksums}
        except (FileNotFoundError, Damaged):
            tensors = {}
        missing = needs.names - tensors.keys()
        lacking = ClipNeeds(
            needs.clip_id,
            needs.path,
            SHOT in missing or GIVEN in missing,
            tuple(n for n in needs.frames if f"{FRAME}{n}" in missing),
        )
        made = encode_clip(lacking, self._codec, self._key.grid)
        tensors |= {new: self._stored(value) for new, value in made.items()}
        return files.write_shard(path, tensors, self._key.latents, name)


def encode_clip(needs: ClipNeeds, codec: Codec, grid: FrameGrid) -> dict[str, Tensor]:
    """Latents of a clip by their names in the cache.

    Raises:
        DataError: the file cannot be decoded as far as needed.
    """
    pictures = read_frames(needs.path, needs.pictures(grid), grid)
    made: dict[str, Tensor] = {}
    if needs.shot:
        video = to_model_range(torch.stack([pictures[i] for i in range(grid.num_frames)], dim=1))
        made[SHOT] = codec.encode(video[None])[0]
        made[GIVEN] = given_frames(codec, video[:, :1], grid).latents_cfhw
    if needs.frames:
        images = to_model_range(torch.stack([pictures[i] for i in needs.frames]))
        latents = encode_images(codec, images)
        made |= {f"{FRAME}{i}": latent for i, latent in zip(needs.frames, latents, strict=True)}
    return made


def encode_images(codec: Codec, images_nchw: Tensor) -> Tensor:
    """`codec.encode_images`, in batches on a GPU: no image sees another either way."""
    if codec.device.type == "cpu":
        return codec.encode_images(images_nchw)
    batches = images_nchw.split(IMAGES_AT_ONCE)
    return torch.cat([codec.encode(batch[:, :, None])[:, :, 0] for batch in batches])


class RayWorker:
    """`CacheWorker` as Ray Data calls it, on rows of bytes."""

    def __init__(self, folder: str, key: CacheKey, encoders: Encoders, device: str | None) -> None:
        self._work = CacheWorker(Path(folder), key, encoders, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One job."""
        return {"done": pickle.dumps(self._work(pickle.loads(row["job"])))}


def _disk_full(folder: Path) -> str:
    return (
        f"disk full: no space left under {folder}; free some, or name another folder, and run the same "
        "command again: finished work is kept"
    )
