"""The CPU engine: an index of the samples, pruned search, and the dense pass."""
