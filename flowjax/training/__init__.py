"""Training: the state, the sharded step, the loop, and checkpoints, metrics and plans."""
