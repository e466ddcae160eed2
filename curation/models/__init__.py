"""One model per file: numpy in, numpy out; no rows, no Ray."""
