"""A tiny plan over numbers: enough to test the plan, the store and both runners without any video."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from curation.engine.stage import BadInput, Fold, Reject, Resources, Stage

SOURCE = pa.schema([("path", pa.string()), ("number", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class Square(Stage):
    name: ClassVar = "square"
    reads: ClassVar = ("number",)
    locates: ClassVar = ("path",)
    writes: ClassVar = pa.schema([("square", pa.float64()), ("note", pa.string())])
    offset: int = 0

    def worker(self):
        def work(row, folder):
            if row["number"] == 13:
                raise BadInput("unlucky", "thirteen cannot be squared")
            if row["number"] == 99:
                raise OSError(errno.ENOSPC, "No space left on device")
            if row["number"] == 66:
                raise ZeroDivisionError("a bug")
            folder.path("note.txt").write_text(str(row["number"]))
            folder.count("squared", 1)
            return {"square": row["number"] ** 2 + self.offset, "note": folder.ref("note.txt")}

        return work


@dataclass(frozen=True, kw_only=True)
class Even(Stage):
    name: ClassVar = "even"
    reads: ClassVar = ("square",)
    cached: ClassVar = False
    resources: ClassVar = Resources(cpus=0.5)

    def worker(self):
        def work(row, folder):
            if row["square"] % 2:
                raise Reject("odd", f"{row['square']} is odd")
            return {}

        return work


@dataclass(frozen=True, kw_only=True)
class Halves(Fold):
    name: ClassVar = "halves"
    grain: ClassVar = "sequence"
    reads: ClassVar = ("square",)
    emits: ClassVar = pa.schema([("sequence_id", pa.string()), ("half", pa.float64())])

    def fold(self, rows):
        return [
            {"sequence_id": f"{row['path']}-{k}", "half": row["square"] / 2}
            for row in rows
            if row["status"] == "kept"
            for k in range(2)
        ]


@dataclass(frozen=True, kw_only=True)
class Double(Stage):
    name: ClassVar = "double"
    reads: ClassVar = ("sequence_id", "half")
    writes: ClassVar = pa.schema([("back", pa.float64())])

    def worker(self):
        return lambda row, folder: {"back": 2 * row["half"]}


STEPS = (Square(), Even(), Halves(), Double())
ROWS = [{"path": f"p{n}", "number": n} for n in (4, 3, 13, 10)]


@dataclass(frozen=True, kw_only=True)
class Waits(Stage):
    """Finishes a row only while `wanted` rows are in work at the same time; counts the workers built."""

    name: ClassVar = "waits"
    reads: ClassVar = ("number",)
    writes: ClassVar = pa.schema([("answer", pa.int64()), ("workers", pa.int64())])
    wanted: int = 3

    def occupies(self):
        return Resources(cpus=0, actors=True, in_flight=self.wanted, max_workers=1)

    def worker(self):
        together = threading.Barrier(self.wanted, timeout=30)
        built.append(self)

        def work(row, folder):
            together.wait()
            key = f"{row['number']:064d}"
            answer = folder.recall(key)
            if answer is None:
                folder.count("paid", 1)
                answer = row["number"] + 1
                folder.remember(key, answer)
            return {"answer": answer, "workers": len(built)}

        return work


@dataclass(frozen=True, kw_only=True)
class Alone(Stage):
    """Takes one row at a time and says whether it did."""

    name: ClassVar = "alone"
    reads: ClassVar = ("number",)
    writes: ClassVar = pa.schema([("alone", pa.bool_())])

    def worker(self):
        inside = threading.Lock()

        def work(row, folder):
            free = inside.acquire(blocking=False)
            time.sleep(0.05)
            if free:
                inside.release()
            return {"alone": free}

        return work


built: list[Waits] = []
