"""How good a trained field is: the loss by time, and the distance of its samples from the data."""
