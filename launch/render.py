"""What to submit to run a binary on a TPU slice: a JobSet for GKE, or commands for xpk and queued resources.

    python launch/render.py --slice=v5e-256 --bucket=my-bucket --image=REGION-docker.pkg.dev/PROJECT/flowjax/flowjax:TAG \\
        -- python -m experiments.train --config=experiments/configs/train.py:imagenet_vavae_xl1 --config.data.path=/bucket/latents
    ... --form=jobset (the default), xpk or queued
    ... --form=check        # see that it is what Kubernetes takes, and that the command is one that the binary takes; submits nothing

--workdir=gs://BUCKET/runs/NAME and --resume are added to the command; data are read from the bucket mounted at /bucket. Needs PyYAML;
--form=check needs the extra `test`.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from flowjax.runtime.exit_codes import FINAL, Exit  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice, as GKE and Cloud TPU name it. Four chips a host."""

    accelerator: str
    topology: str
    chips: int
    type: str
    runtime: str

    @property
    def hosts(self) -> int:
        return self.chips // 4


def _slices() -> dict[str, Slice]:
    found = {}
    flat = {16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
    for chips, topology in flat.items():
        found[f"v5e-{chips}"] = Slice("tpu-v5-lite-podslice", topology, chips, f"v5litepod-{chips}", "v2-alpha-tpuv5-lite")
        found[f"v6e-{chips}"] = Slice("tpu-v6e-slice", topology, chips, f"v6e-{chips}", "v2-alpha-tpuv6e")
    for chips, topology in {16: "2x2x4", 64: "4x4x4", 128: "4x4x8"}.items():
        found[f"v5p-{chips}"] = Slice("tpu-v5p-slice", topology, chips, f"v5p-{2 * chips}", "v2-alpha-tpuv5")  # its types count cores
    return found


SLICES = _slices()
SUPERVISE = ("python", "-m", "experiments.supervise")


@dataclasses.dataclass(frozen=True)
class Job:
    """What to run, and where.

    Raises:
      ValueError: a slice, name or bucket that cannot be; a command that is not `python -m experiments.NAME ...`.
    """

    slice: str
    bucket: str
    image: str
    command: tuple[str, ...]
    name: str = "flowjax"
    queue: str = "multislice-queue"
    service_account: str = "flowjax"
    max_restarts: int = 100

    def __post_init__(self) -> None:
        if self.slice not in SLICES:
            raise ValueError(f"--slice={self.slice}: expected one of {', '.join(SLICES)}")
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise ValueError(f"--name={self.name}: expected lower-case letters, digits and dashes, at most 40")
        if not re.fullmatch(r"[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]", self.bucket):
            raise ValueError(f"--bucket={self.bucket}: expected the name of a bucket, without gs://")
        if self.command[:2] != ("python", "-m") or not re.fullmatch(r"experiments\.\w+", "".join(self.command[2:3])):
            raise ValueError(f"command {shlex.join(self.command)!r}: expected python -m experiments.NAME ..., after --")

    @property
    def full_command(self) -> list[str]:
        return [*self.command, f"--workdir=gs://{self.bucket}/runs/{self.name}", "--resume"]


def jobset(job: Job) -> dict[str, Any]:
    """The manifest."""
    where = SLICES[job.slice]
    values = {
        **dataclasses.asdict(job),
        "hosts": where.hosts,
        "chips_per_host": 4,
        "accelerator": where.accelerator,
        "topology": where.topology,
        "command": json.dumps(job.full_command),
        "final": json.dumps(sorted(int(status) for status in FINAL - {Exit.FINISHED})),
    }
    return dict(yaml.safe_load(string.Template((HERE / "jobset.yaml").read_text(encoding="utf-8")).substitute(values)))


def xpk(job: Job) -> str:
    """The same through xpk (1.16), which brings its own JobSet: it starts again after the statuses that it is told, and 42, 127 to 255."""
    again = ",".join(str(int(status)) for status in sorted(set(Exit) - FINAL))
    parts = ["xpk", "workload", "create", "--cluster=my-cluster", f"--workload={job.name}", f"--tpu-type={SLICES[job.slice].type}"]
    parts += [f"--docker-image={job.image}", f"--max-restarts={job.max_restarts}", f"--restart-on-exit-codes={again}", "--storage=bucket"]
    parts += ["--termination-grace-period-seconds=120"]
    return shlex.join([*parts, f"--command={shlex.join(job.full_command)}"])


def queued(job: Job) -> list[str]:
    """Without Kubernetes: a slice when there is one, and the binary on all of its hosts, under the supervisor."""
    where = SLICES[job.slice]
    create = ["gcloud", "compute", "tpus", "queued-resources", "create", job.name, f"--node-id={job.name}", "--zone=ZONE"]
    create += [f"--accelerator-type={where.type}", f"--runtime-version={where.runtime}", "--spot"]
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", job.name, "--zone=ZONE", "--worker=all"]
    mount = f"sudo mkdir -p /bucket && sudo gcsfuse --implicit-dirs -o ro {job.bucket} /bucket"
    container = ["sudo", "docker", "run", "--rm", "--privileged", "--net=host", "-v", "/bucket:/bucket:ro", job.image]
    supervised = shlex.join([*container, *SUPERVISE, "--", *job.full_command])
    delete = ["gcloud", "compute", "tpus", "queued-resources", "delete", job.name, "--zone=ZONE", "--force"]
    return [shlex.join(create), shlex.join([*ssh, f"--command={mount}"]), shlex.join([*ssh, f"--command={supervised}"]), shlex.join(delete)]


def check(job: Job) -> None:
    """That JobSet's published schema takes the manifest, down to the containers, and the binary each flag of its command.

    Raises:
      ValueError: with the first thing that is wrong.
    """
    manifest = jobset(job)
    for wrong in mistakes(manifest):
        raise ValueError(wrong)
    for replicated in manifest["spec"]["replicatedJobs"]:
        for container in replicated["template"]["spec"]["template"]["spec"]["containers"]:
            check_command(container["command"])
    check_command(SUPERVISE)


def check_command(command: Sequence[str]) -> None:
    """That a binary has each flag that it is given, and the configuration each key. Raises a ValueError."""
    asked = subprocess.run(
        [sys.executable, *command[1:3], *(part for part in command[3:] if part.startswith("--config")), "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent,
    )
    if "rror: " in asked.stderr:  # error: ..., ImportError: ...
        raise ValueError(asked.stderr.strip().splitlines()[-1])
    for part in command[3:]:
        flag = part.removeprefix("--").partition("=")[0]
        if not part.startswith("--") or not (flag.startswith("config.") or re.search(rf"--(\[no\])?{re.escape(flag)}\b", asked.stdout)):
            raise ValueError(f"{' '.join(command[:3])} does not know {part}")


def mistakes(manifest: dict[str, Any]) -> Iterator[str]:
    """What the schema of JobSet (v1alpha2, as Kubeflow publishes it, with that of Kubernetes' Job in it) does not take: unknown fields,
    values of another type, what is required and missing."""
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet
    from pydantic import ValidationError

    try:
        taken = JobsetV1alpha2JobSet.model_validate(_with_quantities(manifest))
    except ValidationError as error:
        for each in error.errors():
            yield f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
        return
    yield from _left_out(manifest, taken, "")
    for rule in manifest["spec"].get("failurePolicy", {}).get("rules", []):
        told = type(taken.spec.failure_policy.rules[0]).model_fields["action"].description
        if rule["action"] not in re.findall(r"\w+", told.partition("Valid values are")[2]):
            yield f"spec.failurePolicy.rules: unknown action {rule['action']!r}"


def _with_quantities(part: Any, name: str = "") -> Any:
    """The same, with its quantities of resources as the models have them."""
    from kubeflow_trainer_api.models import IoK8sApimachineryPkgApiResourceQuantity as Quantity

    if isinstance(part, list):
        return [_with_quantities(each) for each in part]
    if isinstance(part, dict):
        return {key: _with_quantities(each, "quantity" if name in ("limits", "requests") else key) for key, each in part.items()}
    return Quantity(part) if name == "quantity" else part


def _left_out(value: Any, taken: Any, where: str) -> Iterator[str]:
    """Fields of a value that the model made of it does not have: models leave them out without a word."""
    if isinstance(value, list):
        for index, (part, kept) in enumerate(zip(value, taken, strict=True)):
            yield from _left_out(part, kept, f"{where}[{index}]")
    elif isinstance(value, dict) and hasattr(type(taken), "model_fields"):
        names = {field.alias or name: name for name, field in type(taken).model_fields.items()}
        for name, part in value.items():
            inner = f"{where}.{name}".lstrip(".")
            if name not in names:
                yield f"{inner}: unknown field"
            else:
                yield from _left_out(part, getattr(taken, names[name]), inner)


def main(argv: Sequence[str]) -> int:
    """Print what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Job):
        if field.name != "command":
            required = field.default is dataclasses.MISSING
            parser.add_argument(f"--{field.name}", required=required, default=field.default, type=int if field.default == 100 else str)
    parser.add_argument("--form", choices=("jobset", "xpk", "queued", "check"), default="jobset")
    at = list(argv).index("--") if "--" in argv else len(argv)
    options, command = vars(parser.parse_args(argv[:at])), argv[at + 1 :]
    form = options.pop("form")
    try:
        job = Job(command=tuple(command), **options)
        if form == "check":
            check(job)
            print(
                f"{job.slice}: the JobSet of {SLICES[job.slice].hosts} hosts and its command are in order: {shlex.join(job.full_command)}"
            )
        elif form == "jobset":
            print(yaml.safe_dump(jobset(job), sort_keys=False), end="")
        else:
            print(xpk(job) if form == "xpk" else "\n".join(queued(job)))
    except ValueError as error:
        print(f"render: error: {error}", file=sys.stderr)
        return int(Exit.USER_ERROR)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
