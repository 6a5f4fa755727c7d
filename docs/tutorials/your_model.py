# %% [markdown]
# # A PyTorch model beside its oracle
#
# The oracle is what a model of unlimited capacity would learn. A model's distance from it, on each side of the turning point, says which
# stage it has learnt and where it still errs; the training loss does not, since most of it is noise that no model can predict.
#
# Needed: `pip install 'flowjax-oracle[torch]'`. Models of diffusers and EDM: [your model](../your-model.md).
#
# ## A model
#
# A small network, trained for a few seconds on digits, as a rectified flow: t = 0 is noise, t = 1 is data. Put your own in its place.

# %%
import numpy as np
import torch

import flowjax

samples = flowjax.load("digits")  # [1797, 8, 8, 1], from -1 to 1
data = torch.from_numpy(samples.data).flatten(1)
torch.manual_seed(0)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64 + 2, 256), torch.nn.SiLU(), torch.nn.Linear(256, 256), torch.nn.SiLU(), torch.nn.Linear(256, 64)
        )

    def forward(self, x, t):  # x [B, 8, 8, 1], t [B]
        told = torch.stack([torch.cos(3 * t), torch.sin(3 * t)], dim=1)
        return self.layers(torch.cat([x.flatten(1), told], dim=1)).reshape(x.shape)


net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for _ in range(1500):
    x_1 = data[torch.randint(len(data), (128,))]
    x_0, t = torch.randn_like(x_1), torch.rand(128)
    x_t = t[:, None] * x_1 + (1 - t[:, None]) * x_0
    loss = ((net(x_t.reshape(-1, 8, 8, 1), t).flatten(1) - (x_1 - x_0)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.3f}")

# %% [markdown]
# ## The model as a field
#
# `external_field` takes any function of (x, time, label). Is the model the right way round? `measure_direction` compares it with pairs of
# noise and data.

# %%
from flowjax.fields import external_field, measure_direction

net.eval()
field = external_field(lambda x, time, label: net(x, time))
print(measure_direction(field, samples.data[:64]).sentence)

# %% [markdown]
# ## Its error by t
#
# Against the CFM target, which training sees, and against the oracle.

# %%
import jax
from matplotlib import pyplot as plt

from flowjax.analysis.sweep import draw_pairs
from flowjax.metrics.loss_by_t import LossByTimeMeter

oracle = flowjax.Oracle(samples.data)
turn = flowjax.measure_turning_point(oracle).measured
times = np.linspace(0.02, 0.96, 20)
measured = LossByTimeMeter(oracle, draw_pairs(samples.data, 256, seed=0), times)(jax.jit(field.__call__))

plt.plot(times, measured.cfm, "--", label="against the CFM target")
plt.plot(times, measured.oracle, label="against the oracle")
plt.axvline(turn, color="black", linewidth=0.8)
plt.yscale("log")
plt.xlabel("t (0: noise, 1: data)")
plt.ylabel("mean squared error per value")
plt.legend()
plt.show()
print({name: round(value, 4) for name, value in measured.split(turn).items()})

# %% [markdown]
# Where the curves part, the loss is noise. A model that generalises stays away from the oracle in refinement: there the oracle is memory
# of single samples. Samples, guidance and every experiment take the field too: `python -m experiments.loss_by_timestep --help`.
