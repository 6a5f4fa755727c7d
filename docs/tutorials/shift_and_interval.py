# %% [markdown]
# # Choosing a shift and an interval
#
# A sampler's steps can be put nearer to noise or nearer to data (timestep shift), and guidance pays over a part of time only (guidance
# interval). Both follow from the turning point. This page goes from the data to the line to paste into a framework.
#
# From the command line: `python -m experiments.advise --config.data.path=IMAGES --config.for=diffusers`. Needed:
# `pip install flowjax-oracle`.

# %%
import numpy as np

import flowjax
from flowjax import conventions, schedules

samples = flowjax.load("digits")  # or flowjax.load("images", path="FOLDER")
oracle = flowjax.Oracle(samples.data)
turn = flowjax.measure_turning_point(oracle)
settings = flowjax.advice(turn.measured, flowjax.covariance_spectrum(samples.data), share=None)
print(f"turning point      {turn.measured:.3f}")
print(f"shift s            {settings.shift.value:.3f}, range {settings.shift.range}")
print(f"guidance interval  {settings.guidance_interval.value}")

# %% [markdown]
# Every setting comes with the evidence behind it. The interval is a place to begin looking, no more.

# %%
print(settings.shift.evidence)
print(settings.guidance_interval.evidence)

# %% [markdown]
# ## What a shift does
#
# `shift(t, s) = s t / (1 + (s - 1) t)` moves the steps: s below 1 puts more of them before the turning point, s above 1 fewer.

# %%
from matplotlib import pyplot as plt

steps = schedules.uniform_timesteps(20)
advised = settings.shift.value
for height, s in enumerate((1.0, advised, 1 / 3)):
    moved = schedules.shift(steps, s)
    plt.plot(moved, np.full(len(moved), height), "o", label=f"s = {s:.2f}: {np.mean(moved[:-1] < turn.measured):.0%} before the turn")
plt.axvline(turn.measured, color="black", linewidth=0.8)
plt.yticks([])
plt.xlabel("t (0: noise, 1: data)")
plt.legend(loc="center right")
plt.show()

# %% [markdown]
# ## In your framework's units
#
# Frameworks count time the other way, or in steps; `told` translates both numbers into the lines to paste.

# %%
for name in ("diffusers", "comfyui", "lightningdit"):
    told = conventions.told(name, settings.shift.value, settings.guidance_interval.value, num_steps=20)
    print(f"{told['framework']}\n    {told['shift_line']}\n    {told['interval_line']}\n")

# %% [markdown]
# The frameworks that are known are these; [results](../results.md) tells how near to the best the advice came where that was measured.

# %%
print(", ".join(conventions.CONVENTIONS))
