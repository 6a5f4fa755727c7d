"""Train a flow model, and watch navigation and refinement being learnt apart.

    python -m experiments.train                                                              # digits: 3 minutes on two CPU cores
    python -m experiments.train --config.objective.target=oracle --workdir=runs/oracle       # on the exact marginal velocity
    python -m experiments.train --config.objective.times.t_max=0.5 --workdir=runs/early      # a specialist for one stage
    python -m experiments.train --config=experiments/configs/train.py:imagenet_vavae_b1 --config.data.path=FOLDER_OF_SHARDS

`--resume` goes on from the newest checkpoint, or begins where there is none; a run that was stopped, or killed, ends with the parameters
that it would have had. SIGTERM saves, and ends with status 75. Writes, as it goes, checkpoints/, metrics.jsonl, tensorboard/, samples/ and
model.safetensors (the averaged model, in LightningDiT's layout, for `experiments.sample` and others) to --workdir (runs/train), and at its
end config.json, summary.json, loss_by_t.csv, figures/ and report.html. The keys and presets stand in experiments/configs/train.py.
"""

from ml_collections import ConfigDict

from experiments.common import app
from flowjax.reporting.workdir import WorkDir

SEVERAL = True
"""It can run as several processes."""
LIVE = ("checkpoints", "metrics.jsonl", "tensorboard", "samples", "model.safetensors")
FREE = ("steps", "mesh", "plan", "log_every", "checkpoint_every", "keep_checkpoints", "evaluate_every", "evaluation")
"""Keys that may change when a run is resumed: the parameters of a step do not depend on them."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """Train, evaluate and report; returns the sentence to take away."""
    from experiments.common import training_run  # flax and optax are imported only here: `--help` and errors in flags need neither

    return training_run.train_and_evaluate(config, workdir, FREE)


if __name__ == "__main__":
    app.main("train", run, live=LIVE, free=FREE, several=SEVERAL)
