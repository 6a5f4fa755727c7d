"""The TPU compiler without a TPU: compile, read the schedule and the collectives."""
