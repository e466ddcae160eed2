"""The network: attention, positions, transformer, queries, adapters, loss."""
