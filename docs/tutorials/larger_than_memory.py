# %% [markdown]
# # Data larger than memory
#
# `Oracle.from_source` leaves the samples on disk and keeps within a budget of bytes; the answers are the same to float32 rounding. It reads
# what every command reads: latents of LightningDiT, `.npy`, tars, prepared TFDS data sets. Needed: `pip install flowjax-oracle`.
#
# ## A file
#
# 20,000 samples of 256 numbers, 20 MB; a budget of 6 MB stands in for a memory that is too small.

# %%
import pathlib
import tempfile

import numpy as np

import flowjax

rng = np.random.default_rng(0)
factors, noise = rng.standard_normal((20_000, 16)), rng.standard_normal((20_000, 256))
latents = (factors @ rng.standard_normal((16, 256)) / 4 + noise / 10).astype(np.float32)
file = pathlib.Path(tempfile.mkdtemp()) / "latents.npy"
np.save(file, latents)

oracle = flowjax.Oracle.from_source(str(file), budget=6 * 2**20)
print(oracle.plan(0.3))

# %% [markdown]
# ## The same answers

# %%
x_1, x_0 = latents[:64], rng.standard_normal((64, 256)).astype(np.float32)
x_t = 0.3 * x_1 + 0.7 * x_0
on_disk, in_memory = oracle(x_t, 0.3), flowjax.Oracle(latents)(x_t, 0.3)
difference = np.linalg.norm(np.asarray(on_disk.velocity) - np.asarray(in_memory.velocity), axis=1)
print(f"largest relative difference {np.max(difference / np.linalg.norm(np.asarray(in_memory.velocity), axis=1)):.1e}")

# %% [markdown]
# ## Whole paths for one reading
#
# Each call reads the file once, for all its queries. `along_path` reads it once for all times as well: a turning point costs one pass.

# %%
from matplotlib import pyplot as plt

t = np.linspace(0, 0.9, 31)
weight = np.asarray(oracle.along_path(x_0, x_1, t, gap=False).top1_weight).mean(1)
plt.plot(t, weight)
plt.axhline(0.5, color="grey", linewidth=0.8)
plt.xlabel("t (0: noise, 1: data)")
plt.ylabel("weight of the likeliest sample")
plt.show()
print(f"crosses one half at t = {np.interp(0.5, weight, t):.3f}")

# %% [markdown]
# Several machines share the samples out among them: [onto a pod](onto_a_pod.py).
