"""Video and text into what the network reads, with and without weights."""
