"""scikit-learn's handwritten digits: real images that need no download."""

import numpy as np

from flowjax.data.normalization import Normalization
from flowjax.data.records import Records


def records() -> Records:
    """The 1,797 digits of 8x8 pixels that come with scikit-learn, with their labels 0..9.

    The 17 grey levels 0..16 are scaled by `x / 8 - 1` to [-1, 1], exactly in float32. Shape (8, 8, 1), so D = 64.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set).
    """
    import sklearn.datasets  # takes a second to import, which no other source should pay

    bunch = sklearn.datasets.load_digits()
    return Records(
        name="digits",
        rows=bunch.images[..., None].astype(np.uint8),
        labels=np.asarray(bunch.target, np.int32),
        class_names=tuple(str(name) for name in bunch.target_names),
        normalization=Normalization(8, 8, formula="x / 8 - 1"),
        value_range=(-1.0, 1.0),
        provenance={"source": "digits", "path": "sklearn.datasets.load_digits"},
    )
