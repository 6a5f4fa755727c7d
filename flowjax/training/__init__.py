"""Training: a state, one step, a loop that reads as sentences, and the objects by which it meets the world."""
