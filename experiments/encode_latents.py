"""Turn a data source into latents on disk, in LightningDiT's layout.

    python -m experiments.encode_latents                                                    # digits, in a few seconds
    python -m experiments.encode_latents --config=experiments/configs/encode_latents.py:folder --config.data.path=DIR
    python -m experiments.oracle_sweep --config.data.path=latents/digits                    # and what the oracle says of them

The linear autoencoder is fitted on the data; `--config.encoder.factory=MODULE:FUNCTION` takes one of your own (docs/data.md): it imports
MODULE and calls FUNCTION, so name only what you trust. Shards, `latents_stats.safetensors` and `encoding.json` go to `--config.out`; with
`--resume` a run that was interrupted goes on after its last shard. How well the images come back is measured and shown in --workdir
(runs/encode_latents).
"""

import time

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.data import open_data
from experiments.common.factories import checked_settings, json_settings, named_function
from flowjax import data
from flowjax.data.encoder import Encoder, PatchPca
from flowjax.data.encoding import EncodingSettings, encode_records
from flowjax.data.sources.latent_stats import STATS, read_stats
from flowjax.reporting.page import Section
from flowjax.reporting.strip import rows_figure
from flowjax.reporting.workdir import WorkDir


# It is a little over sixty lines: what is done and what is written of it, in one order.
def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    records = open_data(config.data)
    encoder = _encoder(config, records)
    folder = encode_records(
        config.out or f"latents/{records.name}",
        records,
        encoder,
        EncodingSettings(config.flips, config.dtype, config.shard_size, config.batch_size),
        process_index=config.process_index,
        process_count=config.process_count,
        progress=app.progress,
    )
    seconds = time.perf_counter() - started
    if config.process_index:
        return f"Part {config.process_index} of {config.process_count} of {records.name} is encoded in {folder}."
    written = data.open_records("latents", path=folder)
    index = np.sort(np.random.default_rng(config.seed).choice(records.n, min(records.n, 1024), replace=False))
    images = records.normalization(records.read(index))
    restored = np.asarray(jax.jit(encoder.decode)(written.rows[index].astype(np.float32)))
    error = float(np.mean((restored - images) ** 2))
    low, high = records.value_range or (float(images.min()), float(images.max()))
    psnr = 10 * np.log10((high - low) ** 2 / max(error, 1e-30))
    shape = " x ".join(map(str, written.shape))
    takeaway = (
        f"{records.n:,} images of {records.name} became latents of {shape} = {written.d:,} numbers, from {records.d:,}; "
        f"they come back at {psnr:.1f} dB. Read them with --config.data.path={folder}."
    )
    origin = app.provenance("encode_latents", config, started)
    mean, std = read_stats(folder / f"{STATS}.safetensors", written.shape[-1])
    channels = [{"channel": c, "mean": float(mean[c]), "std": float(std[c])} for c in range(len(mean))]
    workdir.write_csv("channels.csv", channels)
    workdir.write_json(
        "summary.json",
        {
            "dataset": records.name,
            "n": records.n,
            "d": records.d,
            "latent_shape": written.shape,
            "latent_d": written.d,
            "flips": config.flips,
            "folder": str(folder),
            "encoder": dict(encoder.settings),
            "psnr": psnr,
            "mean_square_error": error,
            "images_per_second": records.n * (1 + config.flips) / seconds,
            "takeaway": takeaway,
            "units": {"psnr": "dB, over the range of the images", "mean_square_error": "the images' units squared"},
            "provenance": dict(records.provenance),
            **origin,
        },
    )
    shown = min(config.strip_samples, len(index))
    strip = rows_figure({"images": images[:shown], "decoded": restored[:shown]}, (low, high))
    settings = [{"setting": key, "value": str(value)} for key, value in encoder.settings.items()]
    sections = [
        Section(
            "Images and what comes back",
            "Above: images. Below: the same, decoded from their latents.",
            workdir.save_figure("strip", strip),
            alt="Images above their reconstructions",
        ),
        Section("The latents by channel", "As they are on disk. A model sees (z - mean) / std.", table=channels),
        Section("The encoder", "What makes the same latents again.", table=settings),
    ]
    workdir.write_report("Latents of your data", takeaway, sections, origin)
    return takeaway


def _encoder(config: ConfigDict, records: data.Records) -> Encoder:
    """The linear autoencoder, or what the user's factory makes: `factory(records, **settings)`."""
    wanted = config.encoder
    if not wanted.factory:
        return PatchPca.fit(records, wanted.patch, wanted.channels, wanted.max_samples, config.seed)
    settings = checked_settings("encoder.settings", json_settings("encoder.settings", wanted.settings))
    encoder = named_function("encoder.factory", wanted.factory)(records, **settings)
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"config.encoder.factory={wanted.factory!r}: made a {type(encoder).__name__} without settings, encode, decode or save"
        )
    return encoder


if __name__ == "__main__":
    app.main("encode_latents", run)
