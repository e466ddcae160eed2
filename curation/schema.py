"""The published dataset: one Arrow schema per table. Names here never change without a new version.

Spans are half-open. `*_pts` are ticks of the film's time base, `*_frame` presentation indices from 0,
`*_s` seconds since the film's first frame. Boxes are source pixels unless the column says otherwise.
A score that could not be computed is null. This module imports nothing but Arrow, so that trainers,
benchmarks and notebooks may import it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1

_I32, _I64, _F64 = pa.int32(), pa.int64(), pa.float64()
_STR, _BOOL = pa.string(), pa.bool_()
_STRS = pa.list_(_STR)

MODEL = pa.struct([(c, _STR) for c in ("part", "tier", "backend", "model_id", "revision", "sha256")])
OVERLAY = pa.struct([("kind", _STR), *((c, _F64) for c in ("x", "y", "width", "height", "start_s", "end_s"))])
BETTER_COPY = pa.struct([("shot_id", _STR), ("distance", _F64), ("is_part", _BOOL)])
PRESET_COVERAGE = pa.struct([("preset", _STR), ("num_sequences", _I32), ("covered_s", _F64), ("share", _F64)])


@dataclass(frozen=True)
class Column:
    """A field with what a reader needs to know: meaning, unit, producing stage; keys are never null."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    stage: str = ""
    key: bool = False

    def field(self, stage: str) -> pa.Field:
        """The Arrow field; `stage` is the producer unless the column names its own."""
        notes = {"description": self.description, "unit": self.unit, "stage": self.stage or stage}
        return pa.field(self.name, self.type, nullable=not self.key, metadata=notes)


def _table(grain: str, stage: str, *columns: Column) -> pa.Schema:
    notes = {"grain": grain, "schema_version": str(SCHEMA_VERSION)}
    return pa.schema([c.field(stage) for c in columns], metadata=notes)


C = Column


def _key(name: str, description: str) -> Column:
    return Column(name, _STR, description, key=True)


def _span(of: str, stage: str) -> list[Column]:
    return [
        C("start_pts", _I64, f"First tick of the {of}", "ticks", stage),
        C("end_pts", _I64, f"Tick after the {of}", "ticks", stage),
        C("start_frame", _I64, f"First frame of the {of}, presentation order", "frames", stage),
        C("end_frame", _I64, f"Frame after the {of} (half-open)", "frames", stage),
        C("start_s", _F64, f"Start of the {of}", "s", stage),
        C("end_s", _F64, f"End of the {of}", "s", stage),
    ]


def _box(of: str) -> list[Column]:
    return [
        C("x", _F64, f"Left edge of the {of}", "source pixels"),
        C("y", _F64, f"Top edge of the {of}", "source pixels"),
        C("width", _F64, f"Width of the {of}", "source pixels"),
        C("height", _F64, f"Height of the {of}", "source pixels"),
    ]


def _verdict(what: str) -> list[Column]:
    return [
        C("status", _STR, f"What became of the {what}: kept, rejected or failed", key=True),
        C("stage", _STR, f"Stage that settled the {what}; null if kept"),
        C("reason", _STR, "Stable snake_case word; null if kept"),
        C("detail", _STR, "One line for a person; null if kept"),
    ]


SCORES = (
    C("luma_mean", _F64, "Mean luma", "0..255"),
    C("luma_p90", _F64, "90th percentile of luma over the picture, mean over frames", "0..255"),
    C("contrast", _F64, "Standard deviation of luma over the picture, mean over frames", "0..255"),
    C("dark_share", _F64, "Frames whose mean luma is under 24", "share"),
    C("bright_share", _F64, "Frames whose mean luma is over 235", "share"),
    C("sharpness", _F64, "Variance of the Laplacian of luma at source size, median", "0..255 squared"),
    C("motion", _F64, "Luma change that global translation does not explain", "0..255 per s"),
    C("shake", _F64, "Distance of the picture from its smooth path, median", "share of width"),
    C("freeze_share", _F64, "Time in runs of half a second or more of identical frames", "share"),
    C("flicker", _F64, "Mean absolute second difference of frame luma", "0..255"),
    C("bar_top", _I32, "Black bar at the top", "source pixels"),
    C("bar_bottom", _I32, "Black bar at the bottom", "source pixels"),
    C("bar_left", _I32, "Black bar at the left", "source pixels"),
    C("bar_right", _I32, "Black bar at the right", "source pixels"),
    C("corrupt_share", _F64, "Frames decoded with errors", "share"),
    C("text_free_share", _F64, "Largest crop without titles or other text drawn over the film", "share"),
    C(
        "aesthetic",
        _F64,
        "Raw score of LAION's linear head (sa_0_4_vit_l_14_linear) on CLIP ViT-L/14, about 1 to 10;"
        " null unless the optional tier ran",
        stage="aesthetic",
    ),
)
"""Quality scores of shots; sequences carry them over their clips, the worst one for shares."""


def _scores() -> list[Column]:
    return [C(s.name, s.type, s.description, s.unit, s.stage or "quality") for s in SCORES]


FILMS = _table(
    "file found",
    "ingest",
    C("film_id", _STR, "Content hash of the file; null if it could not be read"),
    C("path", _STR, "Where the file was found", key=True),
    C("licence", _STR, "Licence as set for the source"),
    C("sha256", _STR, "Hash the film id is made of"),
    C("size_bytes", _I64, "Size of the file", "bytes"),
    C("duration_s", _F64, "Duration of the video stream", "s"),
    C("fps", _F64, "Average frame rate", "frames per s"),
    C("width", _I32, "Width of the picture after rotation", "pixels"),
    C("height", _I32, "Height of the picture after rotation", "pixels"),
    C("rotation", _I32, "Counter-clockwise turn applied to the decoded picture", "degrees"),
    C("sar_num", _I32, "Sample aspect ratio, numerator"),
    C("sar_den", _I32, "Sample aspect ratio, denominator"),
    C("time_base_num", _I32, "Time base of ticks, numerator", "s"),
    C("time_base_den", _I32, "Time base of ticks, denominator"),
    C("first_pts", _I64, "Timestamp of the first frame; seconds count from here", "ticks"),
    C("vfr", _BOOL, "Whether the frame rate varies"),
    C("interlaced", _BOOL, "Whether the stream is interlaced"),
    C("bit_depth", _I32, "Bits per sample", "bits"),
    C("codec", _STR, "Video codec"),
    C("pix_fmt", _STR, "Pixel format"),
    C("container", _STR, "Container format"),
    C("num_packets", _I64, "Video packets in the container"),
    C("num_shots", _I32, "Shots found", stage="shots"),
    C("num_usable_shots", _I32, "Shots that passed the quality filters", stage="filters"),
    C("num_sequences", _I32, "Sequences packed, whatever became of them", stage="sequences"),
    C("num_kept_sequences", _I32, "Sequences kept to the end", stage="publish"),
    C("kept_s", _F64, "Seconds of the film in kept clips", "s", "publish"),
    C("preset_coverage", pa.list_(PRESET_COVERAGE), "What each preset would keep", stage="sequences"),
    C("notes", _STRS, "What was handled: rotation, varying rate, ignored streams..."),
    C("models", pa.list_(MODEL), "Models that decided the shots", stage="shots"),
    *_verdict("film"),
)

SHOTS = _table(
    "shot of a film",
    "shots",
    _key("shot_id", "Film id and span in ticks"),
    _key("film_id", "Film of the shot"),
    C("shot_index", _I32, "Place in the film, from 0"),
    *_span("shot", "shots"),
    C("duration_s", _F64, "Length of the shot", "s"),
    C("transition_in", _STR, "Boundary at the start: start, cut, fade or dissolve"),
    C("transition_out", _STR, "Boundary at the end: cut, fade, dissolve or end"),
    C("confidence", _F64, "Of the boundary at the start", "0..1"),
    *_scores(),
    C("phash", _STRS, "Perceptual hashes from the start on, two a second", "hex digits", "quality"),
    C("phash_end", _STRS, "Perceptual hashes from the end back", "hex digits", "quality"),
    C("duplicate_of", _STR, "Usable shot that this one is a copy of; null if none", stage="filters"),
    C("duplicate_distance", _F64, "How far the copy is from it", "bits of 127", "filters"),
    C(
        "better_copies",
        pa.list_(BETTER_COPY),
        "Copies that this shot gives way to, where they are usable; is_part: it is only a part of that one",
        stage="duplicates",
    ),
    C("usable", _BOOL, "Whether the shot passed the quality filters", stage="filters"),
    C("reason", _STR, "Why the shot is not usable; null if it is", stage="filters"),
    C("detail", _STR, "The score and the limit it missed", stage="filters"),
    C("sequence_id", _STR, "Sequence the shot was packed into; null if none", stage="sequences"),
    C("is_context", _BOOL, "Whether it lies in that sequence as context only", stage="sequences"),
)

SEQUENCES = _table(
    "packed sequence",
    "sequences",
    _key("sequence_id", "Film id and span in ticks"),
    _key("film_id", "Film of the sequence"),
    *_span("sequence", "sequences"),
    C("duration_s", _F64, "Length from the first clip's start to the last one's end", "s"),
    C("num_shots", _I32, "Shots that are clips, context not counted"),
    C("num_context", _I32, "Short shots inside that are context only"),
    C("num_clips", _I32, "Clips published; 0 unless kept", stage="export"),
    C("num_subjects", _I32, "Recurring subjects", stage="subjects"),
    C("primary_subject_id", _STR, "The first of its main subjects", stage="subjects"),
    C("crop_x", _I32, "Left edge of the crop", "source pixels", "crop"),
    C("crop_y", _I32, "Top edge of the crop", "source pixels", "crop"),
    C("crop_width", _I32, "Width of the crop", "source pixels", "crop"),
    C("crop_height", _I32, "Height of the crop", "source pixels", "crop"),
    C("overlays", pa.list_(OVERLAY), "Text found: subtitle, logo or scene_text", stage="crop"),
    C("story_caption", _STR, "What happens in the sequence", stage="captions"),
    C(
        "reconstruct_target",
        _STR,
        "All subjects, a line `[Person A] look` each, as scripts for generation carry it",
        stage="captions",
    ),
    *_scores(),
    C("analysed_frames", _I32, "Frames read for text and subjects", stage="analyse"),
    C("models", pa.list_(MODEL), "What ran on the sequence, with revision and hash"),
    C("preset", _STR, "Packing preset"),
    C("settings_hash", _STR, "Hash of the resolved settings of the run", stage="publish"),
    C("licence", _STR, "Licence of the film", stage="ingest"),
    *_verdict("sequence"),
)

CLIPS = _table(
    "exported shot of a kept sequence",
    "export",
    _key("clip_id", "Sequence id and clip index"),
    _key("sequence_id", "Sequence of the clip"),
    _key("film_id", "Film of the clip"),
    _key("shot_id", "Shot the clip shows"),
    C("clip_index", _I32, "Place in the sequence, from 0; context shots count"),
    C("video_path", _STR, "Video file, relative to the dataset folder", key=True),
    C("num_frames", _I32, "Frames in the file", "frames"),
    C("fps", _F64, "Constant frame rate of the file", "frames per s"),
    C("height", _I32, "Height of the file's picture", "pixels"),
    C("width", _I32, "Width of the file's picture", "pixels"),
    C("duration_s", _F64, "Length of the file", "s"),
    C("start_s", _F64, "Start in the film", "s"),
    C("end_s", _F64, "End in the film", "s"),
    C("transition_in", _STR, "Boundary at the start of the shot", stage="shots"),
    C("transition_out", _STR, "Boundary at the end of the shot", stage="shots"),
    C("global_caption", _STR, "Who and where, shared by the sequence", stage="captions"),
    C("shot_caption", _STR, "What happens in this shot", stage="captions"),
    C("caption", _STR, "Both in the trainer's grammar", stage="captions"),
    C("sha256", _STR, "Hash of the file", "hex digits"),
    C("licence", _STR, "Licence of the film", stage="ingest"),
)

SUBJECTS = _table(
    "recurring subject of a kept sequence",
    "subjects",
    _key("subject_id", "Sequence id and number by order of appearance"),
    _key("sequence_id", "Sequence of the subject"),
    _key("film_id", "Film of the subject"),
    C("label", _STR, "Name in captions: [Person A], [Animal B]..."),
    C("class_name", _STR, "Class by the detector"),
    C("description", _STR, "Fixed, pronoun-free description", stage="captions"),
    C("is_primary", _BOOL, "Whether it is one of the sequence's main subjects"),
    C("screen_time_s", _F64, "Time on screen", "s"),
    C("num_clips", _I32, "Clips it appears in"),
    C("clip_indices", pa.list_(_I32), "The clip_index of the clips it appears in"),
    C("track_ids", pa.list_(_I32), "Tracks joined into it"),
    C("confidence", _F64, "That these tracks are one subject", "0..1"),
    C("colours", _STRS, "Dominant colours, most common first"),
)

TRACKS = _table(
    "box of a subject in a frame",
    "analyse",
    _key("subject_id", "Subject in the box"),
    _key("sequence_id", "Sequence of the subject"),
    _key("film_id", "Film of the subject"),
    C("shot_id", _STR, "Shot of the frame"),
    C("clip_index", _I32, "Clip of the frame"),
    C("track_id", _I32, "Unbroken track inside the shot, unique in the sequence"),
    C("frame", _I64, "Frame of the film, presentation order", "frames"),
    C("pts", _I64, "Timestamp of the frame", "ticks"),
    C("time_s", _F64, "Time in the film", "s"),
    *_box("subject"),
    C("cropped_x", _F64, "Left edge in the crop, may be negative", "source pixels", "crop"),
    C("cropped_y", _F64, "Top edge in the crop, may be negative", "source pixels", "crop"),
    C("score", _F64, "Detector's confidence", "0..1"),
    C("sharpness", _F64, "Variance of the Laplacian of luma in the box", "0..255 squared"),
)

RECON_TARGETS = _table(
    "target frame of a kept sequence",
    "recon_targets",
    _key("recon_id", "Sequence id and number"),
    _key("sequence_id", "Sequence of the target"),
    _key("film_id", "Film of the target"),
    _key("subject_id", "Subject the frame shows"),
    _key("clip_id", "Clip the frame is in"),
    C("clip_index", _I32, "Place of that clip in the sequence"),
    C("frame", _I64, "Frame of the film, presentation order", "frames"),
    C("pts", _I64, "Timestamp of the frame", "ticks"),
    C("time_s", _F64, "Time in the film", "s"),
    C("frame_in_clip_16fps", _I32, "Index in the clip's file; under 81", "frames"),
    *_box("subject"),
    C("area_share", _F64, "Subject's share of the picture", "share"),
    C("sharpness", _F64, "Variance of the Laplacian of luma in the box", "0..255 squared"),
    C("image_path", _STR, "Picture, relative to the dataset folder", stage="export", key=True),
    C("sha256", _STR, "Hash of the picture", "hex digits", "export"),
    C("caption", _STR, "What the target shows", stage="captions"),
)

CAPTIONS = _table(
    "caption request",
    "captions",
    _key("sequence_id", "Sequence asked about"),
    _key("film_id", "Film of the sequence"),
    C("call_index", _I32, "Order of the requests of a sequence, from 0"),
    C("stage", _STR, "story, shot or recon"),
    C("target", _STR, "What was asked about: a clip, a target, or the sequence"),
    C("status", _STR, "ok, repaired, rejected, truncated, refused or error (docs/captions.md)"),
    C("backend", _STR, "Engine that answered"),
    C("model_id", _STR, "Model that answered"),
    C("revision", _STR, "Revision of the model"),
    C("sampling", _STR, "Settings of the sampling as JSON; null if nothing is sampled"),
    C("prompt_hash", _STR, "Hash of the prompt files", "hex digits"),
    C("attempts", _I32, "Times it was asked: 2 with a repair call, 0 if nothing could be asked"),
    C("tokens_in", _I64, "Tokens sent in all attempts; null if the engine counts none", "tokens"),
    C("tokens_out", _I64, "Tokens answered in all attempts; null if the engine counts none", "tokens"),
    C("faults", _STRS, "What the linter found, repaired or not"),
    C("asked", _STR, "Text sent first; what all requests of a sequence share stands in its story's row"),
    C("answered", _STR, "Last answer as it was written, at most 4,000 characters"),
)

REJECTS = _table(
    "film, shot or sequence not kept",
    "publish",
    _key("id", "Film, shot or sequence id; the path of a file without id"),
    _key("grain", "film, shot or sequence"),
    C("film_id", _STR, "Film it belongs to; null if the file could not be read"),
    C("path", _STR, "File it belongs to"),
    C("stage", _STR, "Stage that settled it"),
    C("status", _STR, "rejected (sound, not wanted) or failed (unusable)", key=True),
    C("reason", _STR, "Stable snake_case word", key=True),
    C("detail", _STR, "One line for a person"),
    C("start_s", _F64, "Start in the film; null for films", "s"),
    C("end_s", _F64, "End in the film; null for films", "s"),
)

COVERAGE = _table(
    "span of a film; the spans of a film tile it",
    "sequences",
    _key("film_id", "Film of the span"),
    C("start_s", _F64, "Start of the span", "s", key=True),
    C("end_s", _F64, "End of the span", "s", key=True),
    C("used_by", _STR, "Kept sequence that uses the span; null if none"),
    C("reason", _STR, "Why no clip shows it, `context` and `trimmed` inside a sequence; null in a clip"),
    C("sequence_id", _STR, "Sequence the span was packed into, kept or not"),
)

TABLES: dict[str, pa.Schema] = {
    "films": FILMS,
    "shots": SHOTS,
    "sequences": SEQUENCES,
    "clips": CLIPS,
    "subjects": SUBJECTS,
    "tracks": TRACKS,
    "recon_targets": RECON_TARGETS,
    "captions": CAPTIONS,
    "rejects": REJECTS,
    "coverage": COVERAGE,
}


def note(field: pa.Field, name: str) -> str:
    """The field's `description`, `unit` or `stage`; empty if it has none."""
    return (field.metadata or {}).get(name.encode(), b"").decode()


def grain(schema: pa.Schema) -> str:
    """What one row of a published table stands for."""
    return (schema.metadata or {})[b"grain"].decode()


def reference() -> str:
    """The tables as Markdown, for docs/dataset.md: `python -m curation.schema` prints it."""
    parts = []
    for name, schema in TABLES.items():
        lines = [f"### {name}", "", f"One row per {grain(schema)}.", ""]
        lines += ["| column | type | unit | meaning | stage |", "|---|---|---|---|---|"]
        for field in schema:
            column = f"**{field.name}**" if not field.nullable else field.name
            kind = str(field.type).replace("element: ", "").replace("item: ", "")
            notes = [note(field, n) for n in ("unit", "description", "stage")]
            lines.append(f"| {column} | {kind} | {notes[0]} | {notes[1]} | {notes[2]} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
