"""From videos to features on disk: every video decoded once, every encoder fed from that pass."""
