"""Samples over the devices of a mesh."""
