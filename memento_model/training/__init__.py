"""From the published dataset to checkpoints."""
