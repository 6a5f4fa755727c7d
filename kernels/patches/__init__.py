"""Posteriors over the patches of images: means of their centres, given noisy images. `api` is the door, `reference` the definition."""
