# %% [markdown]
# # Onto a pod
#
# One program runs on a core and on a TPU slice: the samples are shared out over the devices of a mesh. What the devices exchange does not
# depend on how many samples there are. This page runs the sharded program on two devices of a CPU, and asks beforehand what a slice needs.
# Needed: `pip install flowjax-oracle`.
#
# ## Several devices
#
# A CPU counts as one device unless JAX is told otherwise, before it is imported. On a TPU slice leave these lines out.

# %%
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

import flowjax

mesh = jax.make_mesh((2, 1), ("samples", "queries"))
digits = flowjax.load("digits")
sharded, alone = flowjax.Oracle(digits.data, mesh=mesh), flowjax.Oracle(digits.data)
x_t = np.random.default_rng(0).standard_normal((16, 8, 8, 1)).astype(np.float32)
difference = np.abs(np.asarray(sharded(x_t, 0.4).velocity) - np.asarray(alone(x_t, 0.4).velocity)).max()
print(f"{len(jax.devices())} devices, largest difference of a velocity {difference:.1e}")

# %% [markdown]
# ## Will it fit?
#
# The real TPU compiler answers without a TPU, on any x86 machine (`pip install 'flowjax-oracle[tpu]'`): bytes on each chip, what is sent,
# how busy the matrix unit is. A million latents of 8,192 numbers on 256 chips of v5e:
#
# ```sh
# python -m kernels.aot --topology=v5e:16x16 --n=1281167 --d=8192 --queries=1024 --precision=default --sharded
# python -m experiments.plan_training --topology=v5e:16x16 --config=experiments/configs/train.py:imagenet_vavae_xl1
# ```
#
# ## The job
#
# Every host starts the same command; on Cloud TPU and GKE the processes find each other, and each reads its own part of the data.
# `launch/render.py` writes the manifest, and checks it, without submitting anything:
#
# ```sh
# python launch/render.py --slice=v5e-16 --form=jobset --bucket=my-bucket --image=REGISTRY/IMAGE -- \
#     python -m experiments.oracle_sweep --config.data.path=/bucket/latents --workdir=gs://my-bucket/sweep
# ```
#
# A run that is killed goes on where it was with `--resume`. How jobs survive preemption: [jobs on Cloud TPU](../../launch/README.md) and
# [scale](../scale.md).
