"""The demo film: real-looking subjects, known cuts, subtitles, logo and faults, with ground truth."""
