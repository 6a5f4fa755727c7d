# %% [markdown]
# # Is my model copying?
#
# The audit needs samples and the training data, no model. Each sample is looked up exactly among the training data, and the distance to
# the nearest is compared with that to the next one that is no near-duplicate. The ratio is 0 for a copy, and about 1 for a sample that is
# like no training sample.
#
# From the command line: `python -m experiments.audit --config.samples=SAMPLES --config.data.path=TRAINING_DATA --config.heldout=HELD_OUT`;
# the page [audit](../audit.md) has the rule, and how often it errs. Needed: `pip install flowjax-oracle`.
#
# ## Samples
#
# 1,200 digits are the training data, 397 are held out, and 200 others stand in for a model's samples, 20 of which are planted copies with a
# little noise.

# %%
import numpy as np

import flowjax

digits = flowjax.load("digits").data
order = np.random.default_rng(0).permutation(len(digits))
training, heldout, samples = digits[order[:1200]], digits[order[1200:1597]], digits[order[1597:]].copy()
planted = np.arange(20)
samples[planted] = training[planted] + 0.02 * np.random.default_rng(1).standard_normal(samples[planted].shape).astype(np.float32)

# %% [markdown]
# ## The nearest of each

# %%
from flowjax.metrics import copying
from flowjax.metrics.neighbours import NeighbourSearch, Rows

search = NeighbourSearch(Rows.of(training))
of_samples = copying.nearest(search, samples.reshape(len(samples), -1))
of_heldout = copying.nearest(search, heldout.reshape(len(heldout), -1))
limit = copying.threshold(of_heldout.ratio)
passed, unseen = of_samples.ratio <= limit, of_heldout.ratio <= limit
share = copying.excess(passed, unseen)
print(f"threshold {limit:.3f}: {passed.sum()} samples pass, {passed[planted].sum()} of the 20 planted ones")
print(f"copies: {share.value:.1%} (95 %: {share.low:.1%} to {share.high:.1%})")

# %%
from matplotlib import pyplot as plt

bins = np.linspace(0, 1.05, 43)
plt.hist(of_heldout.ratio, bins, density=True, alpha=0.6, label="held-out data")
plt.hist(of_samples.ratio, bins, density=True, alpha=0.6, label="samples")
plt.axvline(limit, color="black", linewidth=0.8, label="threshold")
plt.xlabel("distance to the nearest / to the next")
plt.legend()
plt.show()

# %% [markdown]
# ## The suspects, above what they copy

# %%
first = np.argsort(of_samples.ratio)[:8]
figure, axes = plt.subplots(2, len(first), figsize=(9, 2.6))
for column, i in zip(axes.T, first, strict=True):
    for axis, image in zip(column, (samples[i], training[of_samples.row[i]]), strict=True):
        axis.imshow(image[..., 0], cmap="gray", vmin=-1, vmax=1)
        axis.axis("off")
    column[0].set_title(f"{of_samples.ratio[i]:.2f}")
plt.show()

# %% [markdown]
# Without held-out data the share of honest samples that pass is not known: give some. Where in t a model memorises is measured by
# `python -m experiments.memorization_by_timestep`.
