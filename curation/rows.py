"""Columns of the rows that flow between stages. The published tables are in `curation.schema`.

Three grains: a film (or a file that turned out to be none), a segment of a film between key frames
(only for the scan), and a sequence. Spans are half-open. `*_pts` are ticks of the video stream's time base,
`*_frame` presentation indices from 0, `*_s` seconds since the film's first frame. Pixels are source pixels:
of the decoded frame after rotation, before the sample aspect ratio is applied. Sizes are (height, width).
"""

from __future__ import annotations

import pyarrow as pa

I32, I64, F32, F64 = pa.int32(), pa.int64(), pa.float32(), pa.float64()
STR, BOOL = pa.string(), pa.bool_()

SPAN = [
    ("start_pts", I64),
    ("end_pts", I64),
    ("start_frame", I64),
    ("end_frame", I64),
    ("start_s", F64),
    ("end_s", F64),
]

MODEL = pa.struct(
    [
        ("part", STR),
        ("tier", STR),
        ("backend", STR),
        ("model_id", STR),
        ("revision", STR),
        ("sha256", STR),
    ]
)
"""What ran. `tier`: full or embedded."""

# -- film grain ---------------------------------------------------------------------------------

SOURCE = pa.schema([("path", STR), ("licence", STR)])
"""One row per file found. `path` is absolute, or a URL that fsspec opens."""

IDENTITY = pa.schema([("film_id", STR), ("sha256", STR), ("size_bytes", I64)])

STREAM = pa.struct(
    [
        ("stream_index", I32),  # index of the chosen video stream in the container
        ("width", I32),
        ("height", I32),  # decoded picture after rotation
        (
            "rotation",
            I32,
        ),  # degrees counter-clockwise to apply to the decoded picture: 0, 90, 180, 270
        ("sar_num", I32),
        ("sar_den", I32),  # sample aspect ratio after rotation, 1:1 if unknown
        ("time_base_num", I32),
        ("time_base_den", I32),
        ("first_pts", I64),  # of the first frame in presentation order; seconds count from here
        ("fps", F64),  # average; never used to turn indices into times
        ("vfr", BOOL),
        ("interlaced", BOOL),
        ("bit_depth", I32),
        ("codec", STR),
        ("pix_fmt", STR),
        ("container", STR),
        ("num_packets", I64),
        ("duration_s", F64),
        ("seeks_exactly", BOOL),  # false for program streams in which only decoding from the start is right
    ]
)
"""What every stage that decodes needs to know. See `curation.video.probe`."""

SEGMENT = pa.struct([("index", I32), ("start_pts", I64), ("end_pts", I64)])
"""A key-frame-aligned span to scan; `end_pts` is null in the last one."""

INGEST = pa.schema([("stream", STREAM), ("segments", pa.list_(SEGMENT)), ("notes", pa.list_(STR))])
"""`notes`: one line per thing that was handled (rotation, VFR, second video stream ignored...)."""

SHOT = pa.struct(
    [
        ("shot_id", STR),
        ("shot_index", I32),
        *SPAN,
        ("transition_in", STR),
        ("transition_out", STR),  # start, cut, fade, dissolve, end
        ("confidence", F64),  # of the boundary at its start, 0..1; 1 at the start
    ]
)
"""Frames inside a gradual transition belong to neither neighbour, so spans may leave gaps."""

SHOT_SCORES = pa.struct(
    [
        ("luma_mean", F64),  # 0..255, mean over frames
        ("luma_p90", F64),  # 0..255, 90th percentile over pixels, mean over frames
        ("contrast", F64),  # 0..255, standard deviation over pixels, mean over frames
        ("dark_share", F64),  # share of frames whose mean luma is under 24
        ("bright_share", F64),  # share of frames whose mean luma is over 235
        # variance of the Laplacian of luma at source size, median over key statistics
        ("sharpness", F64),
        # mean absolute luma change per second of the thumbnails that global translation does not
        # explain, above one grey level of noise, 0..255; 0 for a still with grain
        ("motion", F64),
        ("shake", F64),  # distance of the picture from its smooth path, share of width, median
        # share of the shot inside runs of >= 0.5 s of identical frames, up to coding noise; a tripod
        # shot of a still scene with grain is static, not frozen
        ("freeze_share", F64),
        ("flicker", F64),  # mean absolute second difference of frame luma, 0..255
        # black bars, source pixels: of the shot's own pictures, if other shots of the film have them too
        ("bar_top", I32),
        ("bar_bottom", I32),
        ("bar_left", I32),
        ("bar_right", I32),
        ("corrupt_share", F64),  # share of frames decoded with errors
        # largest crop of the exported shape without text drawn over the shot, share of the largest crop
        # that there is; 1 without such text, null for a shot of which the scan kept no still
        ("text_free_share", F64),
        # perceptual hashes inside the bars, 32 hex digits each, null for a flat picture: of the frames
        # 0.25, 0.75, 1.25... s after the shot's start, and so long before its end; at most 16 each
        ("phash", pa.list_(STR)),
        ("phash_end", pa.list_(STR)),
    ]
)
"""Whatever could not be computed is null. See `curation.shots.scores` and `curation.shots.hashes`."""

AESTHETIC = pa.schema([("aesthetics", pa.list_(F64)), ("aesthetic_models", pa.list_(MODEL))])
"""`aesthetics`: per shot the raw score of LAION's linear head, about 1 to 10; null unless the tier ran."""

COPY = pa.struct([("shot_id", STR), ("copy_of", STR), ("distance", F64), ("is_part", BOOL)])
"""A shot and a better copy of it, whether or not either is good enough. `distance`: median Hamming distance
of the compared hashes, 0..127 bits. `is_part`: the shot is only a part of the other one."""

DUPLICATE = pa.struct([("shot_id", STR), ("duplicate_of", STR), ("distance", F64)])
"""A shot and the usable copy that stays in its place."""

SHOT_VERDICT = pa.struct([("usable", BOOL), ("reason", STR), ("detail", STR)])

WINDOW_CLIP = pa.struct([("shot_index", I32), ("is_context", BOOL)])
WINDOW = pa.struct([*SPAN, ("num_shots", I32), ("clips", pa.list_(WINDOW_CLIP))])
"""A packed sequence. `num_shots` counts clips that are not context (`bridged` preset)."""

COVERAGE = pa.struct([("start_s", F64), ("end_s", F64), ("used_by", STR), ("reason", STR)])
"""A span of the film: `used_by` a sequence id, or the reason it is not used. Spans tile the film."""

PRESET_COVERAGE = pa.struct([("preset", STR), ("num_sequences", I32), ("covered_s", F64), ("share", F64)])
"""What each preset would keep of this film."""

# -- segment grain ------------------------------------------------------------------------------

SEGMENT_ROW = pa.schema(
    [
        ("segment_id", STR),
        ("segment", SEGMENT),
        *IDENTITY,
        *SOURCE,
        *INGEST,
    ]
)
SIGNALS = pa.schema([("signals", STR), ("stills", STR)])
"""References to files of the segment: `curation.shots.signals.Signals` and `curation.shots.scan_stills`."""

# -- sequence grain -----------------------------------------------------------------------------

CLIP_SPAN = pa.struct([("shot_id", STR), ("clip_index", I32), ("is_context", BOOL), *SPAN])
"""A shot of a sequence. Context shots keep their place in the order but are not exported."""

SEQUENCE_ROW = pa.schema(
    [
        ("sequence_id", STR),
        ("film_id", STR),
        ("path", STR),
        ("licence", STR),
        ("stream", STREAM),
        *SPAN,
        ("num_shots", I32),
        ("clips", pa.list_(CLIP_SPAN)),
        ("scores", SHOT_SCORES),
        ("aesthetic", F64),
        ("signals", pa.list_(STR)),
        ("segments", pa.list_(SEGMENT)),
    ]
)
"""`scores`: of the clips that are not context: the mean, but the worst of freeze, corrupt, dark, bright
and text-free shares, and the largest bars; hashes are null. `aesthetic`: the mean over the same clips; apart,
so that scoring looks changes nothing that captions and crops are made from."""

TITLES = pa.schema([("title_texts", STR), ("title_models", pa.list_(MODEL))])
"""`title_texts`: artefact, Parquet of STILL_TEXT."""

BOX_SCORE = ("x", "y", "width", "height", "score")
STILL_TEXT = pa.schema([("slot", I64), ("pts", I64), *((name, F64) for name in BOX_SCORE)])
"""One row per text box in a still of the scan (source pixels); a still without text has one row of nulls."""

STILL = pa.struct([("clip_index", I32), ("frame", I64), ("pts", I64), ("time_s", F64), ("image", STR)])
"""A picture of an exported clip as the detectors saw it (JPEG, longest side `analysis_side`)."""

ANALYSIS = pa.schema(
    [
        ("text_boxes", STR),  # artefact: Parquet of TEXT_BOX
        ("boxes", STR),  # artefact: Parquet of TRACK_BOX
        (
            "embeddings",
            STR,
        ),  # artefact: npz, track id -> mean appearance vector (see curation.models.appearance)
        ("stills", pa.list_(STILL)),  # a few of every clip, for whoever would otherwise decode again
        ("analysed_frames", I32),
        ("analysis_models", pa.list_(MODEL)),
    ]
)

TEXT_BOX = pa.schema(
    [
        ("clip_index", I32),
        ("frame", I64),
        ("pts", I64),
        ("time_s", F64),
        ("x", F64),
        ("y", F64),
        ("width", F64),
        ("height", F64),
        ("score", F64),
    ]
)
"""One row per text box; a sampled frame without text has one row with null box columns."""

TRACK_BOX = pa.schema(
    [
        ("track_id", I32),
        ("clip_index", I32),
        ("shot_id", STR),
        ("frame", I64),
        ("pts", I64),
        ("time_s", F64),
        ("x", F64),
        ("y", F64),
        ("width", F64),
        ("height", F64),
        ("score", F64),
        ("class_name", STR),
        ("sharpness", F64),  # variance of the Laplacian of luma inside the box
    ]
)
"""One row per box of a track. Track ids are unique in the sequence and never cross a cut."""

OVERLAY = pa.struct(
    [
        ("kind", STR),  # subtitle, logo, title, scene_text
        ("x", F64),
        ("y", F64),
        ("width", F64),
        ("height", F64),
        ("start_s", F64),
        ("end_s", F64),
    ]
)
CROP = pa.schema(
    [
        ("crop_x", I32),
        ("crop_y", I32),
        ("crop_width", I32),
        ("crop_height", I32),
        ("overlays", pa.list_(OVERLAY)),
    ]
)

SUBJECT = pa.struct(
    [
        ("subject_id", STR),
        ("label", STR),  # [Person A], [Animal B], [Subject C]: order of appearance
        ("class_name", STR),
        ("is_primary", BOOL),
        ("screen_time_s", F64),
        ("track_ids", pa.list_(I32)),
        ("clip_indices", pa.list_(I32)),
        ("confidence", F64),
        ("colours", pa.list_(STR)),  # dominant colour names, most common first
    ]
)
SUBJECTS = pa.schema([("subjects", pa.list_(SUBJECT))])

RECON_TARGET = pa.struct(
    [
        ("recon_id", STR),
        ("subject_id", STR),
        ("clip_index", I32),
        ("frame", I64),
        ("pts", I64),
        ("time_s", F64),
        ("frame_in_clip_16fps", I32),  # index in the exported clip; < 81
        ("x", F64),
        ("y", F64),
        ("width", F64),
        ("height", F64),  # source pixels
        ("area_share", F64),
        ("sharpness", F64),
    ]
)
RECON = pa.schema([("recon_targets", pa.list_(RECON_TARGET))])

CLIP_FILE = pa.struct(
    [
        ("clip_id", STR),
        ("clip_index", I32),
        ("shot_id", STR),
        ("video", STR),  # artefact
        ("num_frames", I32),
        ("fps", F64),
        ("height", I32),
        ("width", I32),
        ("sha256", STR),
        ("start_s", F64),
        ("end_s", F64),  # of the source
    ]
)
RECON_IMAGE = pa.struct([("recon_id", STR), ("image", STR), ("sha256", STR)])
EXPORT = pa.schema(
    [("clip_files", pa.list_(CLIP_FILE)), ("recon_images", pa.list_(RECON_IMAGE)), ("looks", STR)]
)

SHOT_CAPTION = pa.struct(
    [("clip_index", I32), ("global_caption", STR), ("shot_caption", STR), ("caption", STR)]
)
RECON_CAPTION = pa.struct([("recon_id", STR), ("caption", STR)])
DESCRIPTION = pa.struct([("subject_id", STR), ("label", STR), ("description", STR)])
CAPTION_CALL = pa.struct(
    [
        ("stage", STR),
        ("target", STR),
        ("status", STR),  # story, shot, recon; ok, repaired, rejected, ...
        ("backend", STR),
        ("model_id", STR),
        ("revision", STR),
        ("sampling", STR),  # JSON
        ("prompt_hash", STR),
        ("attempts", I32),  # of asking; tokens are over all of them
        ("tokens_in", I64),
        ("tokens_out", I64),
        ("faults", pa.list_(STR)),
        ("asked", STR),  # the words sent first; what all requests of a sequence share stands in its story's
        ("answered", STR),  # the last answer as it was written, its start if it is long
    ]
)
CAPTIONS = pa.schema(
    [
        ("story_caption", STR),
        ("reconstruct_target", STR),  # the inventory, as scripts for generation carry it
        ("descriptions", pa.list_(DESCRIPTION)),
        ("shot_captions", pa.list_(SHOT_CAPTION)),
        ("recon_captions", pa.list_(RECON_CAPTION)),
        ("caption_calls", pa.list_(CAPTION_CALL)),
    ]
)
