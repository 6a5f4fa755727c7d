"""Posteriors over the patches of images: means of the patches' centres, given noisy images. `api.py` is the door, `reference.py` the definition."""
