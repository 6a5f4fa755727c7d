"""Presets of `python -m experiments.train`.

    preset              command                                                           two CPU cores        expect
    digits              python -m experiments.train                                       3 minutes            Fréchet ratio < 3
    fashion_mnist       ... --config=experiments/configs/train.py:fashion_mnist           45 minutes           Fréchet ratio 2.0
    classifier          ... --config=experiments/configs/train.py:classifier              8 s                  96.8 % of held-out digits
    autoencoder         ... --config=experiments/configs/train.py:autoencoder             half a minute        27.7 dB, held out
                        ... --config.autoencoder.align=True                               a minute             26.8 dB
    imagenet_vavae_b1   ... :imagenet_vavae_b1 --config.data.path=FOLDER_OF_SHARDS        (accelerators)       2 steps run here
    imagenet_vavae_xl1  ... :imagenet_vavae_xl1 --config.data.path=FOLDER_OF_SHARDS       (accelerators)       compiled here, not run
    imagenet_sdvae_b1   ... :imagenet_sdvae_b1 --config.data.path=FOLDER_OF_SHARDS        (accelerators)       2 steps run here

The ImageNet presets are the published training: batch 1024, AdamW at 2e-4 with β2 = 0.95, EMA 0.9999; 125,000 steps are 100 epochs.
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "fashion_mnist", "classifier", "autoencoder", "imagenet_vavae_b1", "imagenet_vavae_xl1", "imagenet_sdvae_b1")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = _base()
    if preset == "classifier":
        config.task = "classifier"
        config.update(steps=400, evaluate_every=0, label_dropout=0.0)
        config.optimizer.update(learning_rate=1e-3, decay_steps=400)
    elif preset == "autoencoder":
        config.task = "autoencoder"
        config.update(steps=600, evaluate_every=0, heldout_fraction=0.1)
        config.optimizer.decay_steps = 600
    elif preset == "fashion_mnist":
        config.data.source = "fashion_mnist"
        config.model.size = "Mi/4"
        config.update(batch_size=64, steps=14_000, checkpoint_every=1000, evaluate_every=4000, heldout_fraction=0.1)
        config.optimizer.update(learning_rate=2e-3, decay_steps=14_000)
        config.evaluation.update(frechet_samples=3000, sampler_steps=25)
    elif preset.startswith("imagenet"):
        config.data.source = "latents"
        config.data.flips = True
        config.model.update(size="XL/1" if preset.endswith("xl1") else "B/1", dtype="bfloat16", remat="dots")
        config.optimizer.update(learning_rate=2e-4, decay_steps=0, warmup=0)
        config.update(batch_size=1024, steps=125_000, ema_decay=0.9999, log_every=100, checkpoint_every=5000, evaluate_every=25_000)
        config.heldout_fraction = 0.0
        config.evaluation.update(oracle=False, frechet_samples=0)
        config.plan.update(shape=(16, 16, 32), num_classes=1000, n=1_281_167)
        if preset.endswith("xl1"):
            config.mesh.fsdp = 8
        if preset == "imagenet_sdvae_b1":
            config.model.size = "B/2"
            config.data.update(normalize="none", multiplier=0.18215)  # the convention of SD-VAE's shards
            config.plan.shape = (32, 32, 4)
    return config


# A configuration, key by key: it is long for the reasons that stand beside the keys.
def _base() -> ConfigDict:
    config = ConfigDict()
    config.task = "flow"  # or classifier, autoencoder
    config.data = data_config("digits")
    config.heldout_fraction = 0.5  # kept from training, to compare samples with; 0: none
    config.model = ConfigDict(
        {
            "size": "Mi/2",  # SIZE/PATCH, SIZE one of XL, L, B, S, Ti, Mi, Na, Pi
            "dtype": "float32",  # of matrix products: float32 or bfloat16
            "remat": "none",  # what the backward pass computes again: none, dots, full
            "qk_norm": False,
        }
    )
    config.objective = ConfigDict(
        {
            "target": "cfm",  # or oracle (the exact marginal velocity of the data set), minibatch (that of each batch)
            "path": "rectified_flow",  # or cosine, variance_preserving
            "cosine_weight": 0.0,  # of LightningDiT's direction term
            "times": {"kind": "uniform", "mean": 0.0, "std": 1.0, "shift": 1.0, "t_min": 0.0, "t_max": 1.0},
        }
    )
    config.optimizer = ConfigDict(
        {
            "learning_rate": 3e-3,
            "warmup": 50,
            "decay_steps": 1200,  # over which a cosine brings the rate to 0, whatever `steps` is: a run can be gone on with; 0: it stays
            "beta2": 0.95,
            "weight_decay": 0.0,
            "clip": 1.0,
        }
    )
    config.autoencoder = ConfigDict(
        {
            "channels": 2,  # of the latents
            "factor": 2,  # by how much they are smaller than images: 1, 2 or 4
            "width": 32,
            "kl_weight": 1e-3,
            "align": False,  # with the features of a classifier of the same data, as VA-VAE does with DINOv2's
            "align_weight": 0.1,
        }
    )
    config.batch_size = 128
    config.accumulation = 1
    config.label_dropout = 0.1  # of training on labels; ignored for data without them
    config.ema_decay = 0.999
    config.steps = 1200
    config.mesh = ConfigDict({"batch": 0, "fsdp": 1})  # devices; batch=0: all there are
    config.plan = ConfigDict({"shape": (), "num_classes": 0, "n": 0})  # of data that are not here, for plan_training; (): they are
    config.log_every = 20
    config.checkpoint_every = 500
    config.keep_checkpoints = 3
    config.evaluate_every = 500  # 0: at the end only
    config.evaluation = ConfigDict(
        {
            "oracle": True,  # loss by t against the oracle, and copies: holds the data set in memory
            "queries": 256,
            "times": 20,
            "copies": 32,  # noised samples from which the model is followed at each evaluation, to see which ends are copies; 0: none
            "copies_steps": 10,  # of the solver then
            "grid": 100,  # samples shown
            "sampler_steps": 40,
            "frechet_samples": 898,  # at the end; 0: none
            "classifier_steps": 300,  # of the classifier whose features are compared
        }
    )
    config.seed = 0
    return config
