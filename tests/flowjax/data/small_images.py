"""Five images and their labels, and a file of an array."""

import numpy as np

LABELS = np.array([0, 1, 2, 1, 0])
