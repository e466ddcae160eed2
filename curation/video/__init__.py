"""Everything that touches FFmpeg: probe, decode at exact times, encode."""
