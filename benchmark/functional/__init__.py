"""The arithmetic of the metrics: float64, undefined is NaN, never zero."""
