"""From the `data` block of a configuration to the data; the same for every binary."""

import dataclasses
import inspect

from ml_collections import ConfigDict

from experiments.common import app
from experiments.configs.data import data_config
from flowjax import data
from flowjax.analysis.inspection import glance
from flowjax.data import hub
from flowjax.data.recognize import recognize
from flowjax.data.sources.latent_stats import COMPUTED

_OF_MEMORY = ("flips", "dtype")  # keys of how samples are kept, not of where they come from


def open_data(block: ConfigDict, *, fetch: bool = True, warn: bool = True) -> data.Records:
    """The samples that a block names, as stored: for training and for what reads them once.

    Args:
      fetch: False: a TFDS data set that is not prepared yet is refused, and a name of the hub. For a block that stands in a file.
      warn: print what of some samples is unusual (`flowjax.analysis.inspection.glance`); what is printed stops nothing.

    Raises:
      FileNotFoundError, ValueError: as the source raises them; a key that is set and that the source does not take.
    """
    if block.path.startswith(hub.SCHEME):
        return _from_hub(block, fetch=fetch, warn=warn)
    if "://" in block.path:
        raise ValueError(f"config.data.path={block.path}: data are read from files: mount the bucket, or copy them (launch/README.md)")
    defaults = data_config()
    settings = {key: value for key, value in block.items() if key not in ("source", *_OF_MEMORY) and value != defaults[key]}
    source = block.source
    path = inspect.signature(data.SOURCES[source]).parameters.get("path") if source in data.SOURCES else None
    if block.path and (not source or (source in data.SOURCES and path is None)):
        source = recognize(block.path)
    if not source:
        raise ValueError("no data given: set --config.data.path=FILE_OR_FOLDER, or --config.data.source=NAME")
    if path is not None and path.default is path.empty and not block.path:
        raise ValueError(f"no data given: the source {source!r} reads what lies at --config.data.path=FILE_OR_FOLDER")
    if block.labels and not block.path:
        raise ValueError("--config.data.labels needs --config.data.path, the samples that it labels")
    if not fetch and source not in data.SOURCES:
        settings["prepare"] = False
    records = data.open_records(source, progress=app.progress, **settings)
    if str(records.provenance.get("stats")).startswith(COMPUTED):
        print(f"{records.name}: no statistics were found; they were {records.provenance['stats']}")
    if "not_read" in records.provenance:
        hint = " (--config.data.array=NAME, --config.data.label_array=NAME)" * (source == "arrays")
        print(f"{records.name}: not read: {records.provenance['not_read']}{hint}")
    if "taken_for" in records.provenance:
        print(f"{records.name}: taken for {records.provenance['taken_for']}")
    if "label_mapping" in records.provenance:
        print(f"{records.name}: labels: {records.provenance['label_mapping']}")
    for text in glance(records) if warn else ():
        print(f"warning: {records.name}: {text}")
    return records


def _from_hub(block: ConfigDict, *, fetch: bool, warn: bool) -> data.Records:
    """The samples of a data set of Hugging Face's hub, `hf://OWNER/NAME`."""
    if not fetch:
        raise ValueError(f"config.data.path={block.path}: is fetched only where you name it yourself: give --config.data.path={block.path}")
    there = hub.fetched(block.path)
    records = open_data(ConfigDict(block.to_dict() | {"path": str(there.folder)}), warn=warn)
    return dataclasses.replace(records, name=there.origin.partition("@")[0], provenance={**records.provenance, "hub": there.origin})


def load_data(block: ConfigDict, *, fetch: bool = True) -> data.DataSet:
    """The same, in memory: for the oracle."""
    return loaded(open_data(block, fetch=fetch), block)


def load_beside(block: ConfigDict, records: data.Records, path: str) -> data.DataSet:
    """Samples at `path` of the kind of `records`, which a block names, in memory. Latents there are normalised as the records are."""
    changes = {"source": "", "path": path, "labels": "", "array": "", "label_array": "", "classes": (), "max_samples": 0}
    if "stats" not in records.provenance:
        return load_data(ConfigDict(block.to_dict() | changes))
    beside = open_data(ConfigDict(block.to_dict() | changes | {"stats": "", "multiplier": 0.0, "normalize": "none"}))
    return loaded(dataclasses.replace(beside, normalization=records.normalization), block)


def loaded(records: data.Records, block: ConfigDict) -> data.DataSet:
    """Records in memory, as a block says: with mirror images or without, in its dtype."""
    return records.load(flips=block.flips, dtype=block.dtype, progress=app.progress("reading"))
