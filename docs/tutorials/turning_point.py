# %% [markdown]
# # From images to a turning point
#
# Flow matching goes through two stages. Early in time many training samples shape the velocity, and layouts form (navigation). Late in
# time one sample does, and details form (refinement). The **turning point** is the t between them. It depends on the data, not on a model.
# This page measures it on a folder of images.
#
# The same from the command line, with a report: `python -m experiments.oracle_sweep --config.data.path=IMAGES`. Needed:
# `pip install flowjax-oracle`.
#
# ## A folder of images
#
# Here 1,000 digits of scikit-learn stand in for your images; a folder for each class, as is usual.

# %%
import pathlib
import tempfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
folder = pathlib.Path(tempfile.mkdtemp()) / "images"
for i in range(1000):
    picture = folder / str(digits.target[i]) / f"{i}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((digits.images[i] * 255 / 16).astype(np.uint8)).save(picture)

# %% [markdown]
# `load` reads them as a model sees them: `[N, H, W, C]`, from -1 to 1. Latents (`load("latents", path=...)`), arrays and tables are read
# likewise. Put the path of your own images in place of `folder`; their size has to be the same, or `resolution=64` crops and scales them.

# %%
import flowjax

images = flowjax.load("images", path=str(folder))
print(images.name, images.data.shape, images.data.min(), images.data.max())

# %% [markdown]
# ## The oracle, and the turning point
#
# The oracle is the exact velocity that flow matching converges to on these images. `along_path` follows pairs of noise and image through t.

# %%
oracle = flowjax.Oracle(images.data)
found = flowjax.measure_turning_point(oracle)
print(f"turns at t = {found.measured:.3f} (95 %: {found.ci_low:.3f} to {found.ci_high:.3f})")

# %%
from matplotlib import pyplot as plt

rng = np.random.default_rng(0)
x_1 = images.data[rng.integers(images.n, size=256)]
x_0 = rng.standard_normal(x_1.shape).astype(np.float32)
t = np.linspace(0, 0.95, 39)
path = oracle.along_path(x_0, x_1, t, gap=False)

plt.plot(t, np.asarray(path.top1_weight).mean(1))
plt.axhline(0.5, color="grey", linewidth=0.8)
plt.axvline(found.measured, color="C1", label="turning point")
plt.xlabel("t (0: noise, 1: data)")
plt.ylabel("weight of the likeliest image")
plt.legend()
plt.show()

# %% [markdown]
# ## What the oracle predicts on both sides
#
# Above: a noisy image. Below: what the oracle expects at its end. Before the turning point this is a mean of many images; after it, one of
# them.

# %%
times = (0.1, 0.3, 0.5, 0.7, 0.9)
figure, axes = plt.subplots(2, len(times), figsize=(9, 4))
for column, time in zip(axes.T, times, strict=True):
    x_t = time * x_1[:1] + (1 - time) * x_0[:1]
    for axis, shown in zip(column, (x_t, oracle(x_t, time).denoised), strict=True):
        axis.imshow(np.asarray(shown)[0, ..., 0], cmap="gray", vmin=-1, vmax=1)
        axis.axis("off")
    column[0].set_title(f"t = {time}")
plt.show()

# %% [markdown]
# ## Predicted, without measuring
#
# The turning point can be predicted from the data in less time than it takes to measure it, which counts when there are a million samples.

# %%
print(f"predicted: {flowjax.predict_turning_point_from_data(images.data):.3f}")

# %% [markdown]
# What follows from it for training and sampling: [choosing a shift and an interval](shift_and_interval.py).
