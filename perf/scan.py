"""The scan against a bare decode of the same film, against itself on two cores, and against PySceneDetect.

    python -m perf.scan FILM [--repeat 3] [--cores 0,1]

Everything runs in one session, interleaved, each measurement in a process of its own that is bound to its
cores. Times are medians: wall time, and the CPU time of the process and its children, which a busy machine
disturbs less. The limit of a scan is a bare decode by the same library; skipping the in-loop filter, as the
scan does, is what can make it cheaper than that. Two more limits are measured beside it: that decode without
the filter, below which nothing that looks at every frame can get, and two of them at once, each on a core of
its own, which tell how much a second core adds on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av

GOALS = {
    "scan / bare decode": "<= 1.0",
    "two cores / one core": ">= 1.9",
    "detect-adaptive / scan, one core": ">= 2.5",
    "detect-adaptive / scan, two cores": ">= 4.5",
}


# -- what is measured; each runs in a fresh process -----------------------------------------------


def bare(film: str, cores: list[int]) -> dict[str, Any]:
    """Decode every frame with one thread per core and look at none."""
    return timed(lambda: {"frames": decode(film, len(cores), {})})


def floor(film: str, cores: list[int]) -> dict[str, Any]:
    """One decode without the in-loop filter on every core, all at once, and look at no frame."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(cores)) as pool:
        pool.map(nothing, range(8 * len(cores)), chunksize=1)
        jobs = [(film, 1, {"skip_loop_filter": "all"})] * len(cores)
        return timed(lambda: {"frames": sum(pool.starmap(decode, jobs, chunksize=1))})


def decode(film: str, threads: int, options: dict[str, str]) -> int:
    """Number of frames."""
    with av.open(film) as container:
        video = max(container.streams.video, key=lambda v: v.width * v.height)
        video.codec_context.thread_count = threads
        video.codec_context.thread_type = "AUTO"
        video.codec_context.options = options
        return sum(1 for _ in container.decode(video))


def scan_segments(film: str, cores: list[int]) -> dict[str, Any]:
    """Scan all segments, one process per core; what the probe before it takes is told apart."""
    from curation.shots.signals import Signals
    from curation.stages.ingest import Ingest
    from curation.stages.shots import Shots, find_shots
    from curation.video.probe import probe

    def run() -> dict[str, Any]:
        parts = pool.map(scan_one, jobs, chunksize=1) if pool else [scan_one(job) for job in jobs]
        whole = Signals.concat(parts)
        return {"frames": len(whole), "signals": whole}

    before = time.perf_counter()
    stream, segments, _ = probe(film, segment_s=Ingest().segment_s, min_segments=Ingest().min_segments)
    probe_s = time.perf_counter() - before
    jobs = [(film, stream, segment) for segment in segments]
    pool = None
    if len(cores) > 1:
        context = multiprocessing.get_context("spawn")
        pool = context.Pool(len(cores), initializer=warm_up, initargs=(film,))
        pool.map(nothing, range(8 * len(cores)), chunksize=1)  # every worker has imported everything
    else:
        warm_up(film)
    result = timed(run)
    if pool:
        pool.close()
        pool.join()
    before = time.perf_counter()
    shots = find_shots(result.pop("signals"), stream["fps"], Shots())
    cuts = [(s.start, s.end, s.transition_in, s.transition_out) for s in shots]
    result["decide_s"], result["probe_s"] = time.perf_counter() - before, probe_s
    result["shots"], result["digest"] = len(cuts), hashlib.sha256(str(cuts).encode()).hexdigest()[:12]
    return result


def warm_up(film: str) -> None:
    """Import what the scan needs and scan one frame: workers live long, so their start is not timed."""
    import cv2

    import curation.stages.shots  # noqa: F401
    from curation.video.probe import probe

    cv2.setNumThreads(1)
    stream, segments, _ = probe(film)
    scan_one((film, stream, {**segments[0], "end_pts": segments[0]["start_pts"] + 1}))


def nothing(_: int) -> None:
    time.sleep(0.02)


def scan_one(job: tuple[str, Any, Any]) -> Any:
    from curation.stages.scan import scan

    return scan(*job, options={"skip_loop_filter": "all"})[0]


def peer(film: str, cores: list[int]) -> dict[str, Any]:
    """PySceneDetect's detect-adaptive with its defaults, on as many threads as cores."""
    import cv2
    from scenedetect import AdaptiveDetector, SceneManager, open_video

    cv2.setNumThreads(len(cores))

    def run() -> dict[str, Any]:
        video, manager = open_video(film), SceneManager()
        manager.add_detector(AdaptiveDetector())
        frames = manager.detect_scenes(video)
        return {"frames": frames, "shots": len(manager.get_scene_list())}

    return timed(run)


def memory(film: str, cores: list[int]) -> dict[str, Any]:
    """Peak memory of one worker that scans a whole film, above what it needs before it starts."""
    from curation.video.probe import probe

    warm_up(film)
    stream, segments, _ = probe(film)
    base = peak_mib()
    frames = sum(len(scan_one((film, stream, segment))) for segment in segments)
    return {"frames": frames, "base_mib": base, "above_mib": peak_mib() - base}


TASKS: dict[str, Callable[[str, list[int]], dict[str, Any]]] = {
    "bare": bare,
    "floor": floor,
    "scan": scan_segments,
    "peer": peer,
    "memory": memory,
}


def timed(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `run` with its wall and CPU seconds."""
    cpu, wall = cpu_s(), time.perf_counter()
    result = run()
    return {**result, "wall_s": time.perf_counter() - wall, "cpu_s": cpu_s() - cpu}


def cpu_s() -> float:
    """CPU seconds of this process and of its children, the living ones included."""
    ticks = 0.0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return time.process_time() + ticks


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- the session ----------------------------------------------------------------------------------


def measure(task: str, film: str, cores: list[int]) -> dict[str, Any]:
    """Run a task in a process that may use only these cores."""
    command = [sys.executable, "-m", "perf.scan", film, "--task", task]
    command += ["--cores", ",".join(map(str, cores))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def twice(film: str, folder: Path) -> str:
    """The film twice in a row, packets copied."""
    target = folder / "twice.mkv"
    with av.open(str(target), "w") as out:
        stream, offset = None, 0
        for _ in range(2):
            with av.open(film) as container:
                video = max(container.streams.video, key=lambda v: v.width * v.height)
                stream = stream or out.add_stream_from_template(video)
                last = 0
                for packet in container.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    last = max(last, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    out.mux(packet)
                offset += last
    return str(target)


def session(film: str, cores: list[int], repeat: int) -> str:
    """Measure everything and return the report as Markdown."""
    one, two = cores[:1], cores[:2]
    plan = {
        "bare decode, one core": ("bare", one),
        "decode without its filter, one core": ("floor", one),
        "scan, one core": ("scan", one),
        "detect-adaptive, one core": ("peer", one),
    }
    if len(two) == 2:
        plan |= {"scan, two cores": ("scan", two), "detect-adaptive, two cores": ("peer", two)}
        plan |= {"two decodes without filter, a core each": ("floor", two)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in plan}
    for _ in range(repeat):
        for name, (task, on) in plan.items():
            runs[name].append(measure(task, film, on))
    with tempfile.TemporaryDirectory() as folder:
        used = measure("memory", twice(film, Path(folder)), one)
    return report(runs, used, len(two) == 2)


def report(runs: dict[str, list[dict[str, Any]]], used: dict[str, Any], has_two: bool) -> str:
    """The measurements and their ratios as two tables."""
    wall = {name: statistics.median(r["wall_s"] for r in each) for name, each in runs.items()}
    cpu = {name: statistics.median(r["cpu_s"] for r in each) for name, each in runs.items()}
    lines = ["| what | wall s | CPU s | frames | shots |", "|---|---|---|---|---|"]
    for name, each in runs.items():
        shots = each[0].get("shots", "")
        lines.append(f"| {name} | {wall[name]:.2f} | {cpu[name]:.2f} | {each[0]['frames']} | {shots} |")
    decide, probe = (
        statistics.median(r[part] for r in runs["scan, one core"]) for part in ("decide_s", "probe_s")
    )
    ratios = {"scan / bare decode": ("scan, one core", "bare decode, one core")}
    if has_two:
        ratios["two cores / one core"] = ("scan, one core", "scan, two cores")
    ratios["detect-adaptive / scan, one core"] = ("detect-adaptive, one core", "scan, one core")
    if has_two:
        ratios["detect-adaptive / scan, two cores"] = ("detect-adaptive, one core", "scan, two cores")
    lines += ["", "| ratio | by wall | by CPU | goal |", "|---|---|---|---|"]
    for name, (top, bottom) in ratios.items():
        by_cpu = "" if name.endswith("two cores") else f"{cpu[top] / cpu[bottom]:.2f}"
        by_cpu = "" if name.startswith("two cores") else by_cpu
        lines.append(f"| {name} | {wall[top] / wall[bottom]:.2f} | {by_cpu} | {GOALS[name]} |")
    floor_s = wall["decode without its filter, one core"]
    most = wall["detect-adaptive, one core"] / floor_s
    lines.append(f"| limit: detect-adaptive / decode without filter, one core | {most:.2f} | | |")
    if has_two:
        both_s = wall["two decodes without filter, a core each"]
        most, gain = 2 * wall["detect-adaptive, one core"] / both_s, 2 * floor_s / both_s
        lines.append(f"| limit: detect-adaptive / decode without filter, two cores | {most:.2f} | | |")
        lines.append(f"| limit: what a second core adds to decodes of their own | {gain:.2f} | | |")
        with_probe = (probe + wall["scan, one core"]) / (probe + wall["scan, two cores"])
        lines.append(f"| two cores / one core, with the probe before the scan | {with_probe:.2f} | | |")
        peers = wall["detect-adaptive, two cores"] / wall["scan, two cores"]
        lines.append(f"| detect-adaptive on two cores / scan, two cores | {peers:.2f} | | |")
        digests = {r["digest"] for name in ("scan, one core", "scan, two cores") for r in runs[name]}
        lines += ["", f"Shots on one and on two cores: {'identical' if len(digests) == 1 else 'DIFFERENT'}."]
    lines.append(
        f"Not in these times, whatever the cores: the probe before the scan, {probe:.2f} s, and deciding on "
        f"the shots after it, {decide:.2f} s."
    )
    lines.append(
        f"Memory of a worker that scans the film twice over ({used['frames']} frames): "
        f"{used['above_mib']:.0f} MiB above the {used['base_mib']:.0f} MiB it starts with (goal: under 1024)."
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print, or run one task for the session."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("film", help="a real film of five minutes or more")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cores", default=None, help="numbers of the cores to use, e.g. 0,1")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    usable = sorted(os.sched_getaffinity(0))
    cores = [int(c) for c in options.cores.split(",")] if options.cores else usable[:2]
    if options.task:
        os.sched_setaffinity(0, cores)
        print(json.dumps(TASKS[options.task](options.film, cores)))
        return
    print(session(options.film, cores, options.repeat))


if __name__ == "__main__":
    main()
