"""File formats, read without running anything in them."""
