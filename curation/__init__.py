"""Raw films to a queryable, trainable set of 30-60 s multi-shot sequences with captions."""
