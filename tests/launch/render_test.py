"""What is submitted to a cloud: rendered for every slice, taken by JobSet's published schema, and refused where it cannot be."""

import copy
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from flowjax.runtime.exit_codes import Exit
from launch import render

COMMAND = ("python", "-m", "experiments.train", "--config=experiments/configs/train.py:imagenet_vavae_b1", "--config.steps=10")


def job(**changed: Any) -> render.Job:
    return render.Job(**{"slice": "v5e-16", "bucket": "my-bucket", "image": "registry.example/flowjax:1", "command": COMMAND} | changed)


@pytest.mark.parametrize("name", render.SLICES)
def test_every_slice_gives_a_job_that_kubernetes_takes(name: str) -> None:
    manifest = render.jobset(job(slice=name))
    assert list(render.mistakes(manifest)) == []
    (slice_of,) = manifest["spec"]["replicatedJobs"]
    where = slice_of["template"]["spec"]
    topology = where["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = 1
    for side in topology.split("x"):
        chips *= int(side)
    assert where["completions"] * 4 == chips == int(name.partition("-")[2])


def test_only_what_another_attempt_cannot_change_fails_the_jobset() -> None:
    (slice_of,) = render.jobset(job())["spec"]["replicatedJobs"]
    (rule,) = slice_of["template"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [Exit.USER_ERROR, Exit.INTERRUPTED])


TEMPLATE = ("spec", "replicatedJobs", 0, "template", "spec")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("spec", "failurPolicy"), {}, "failurPolicy"),
        (("spec", "failurePolicy", "rules", 0, "action"), "FailAll", "FailAll"),
        ((*TEMPLATE, "backofLimit"), 0, "backofLimit"),
        ((*TEMPLATE, "parallelism"), "four", "parallelism"),
        ((*TEMPLATE, "template", "spec", "containers"), None, "containers"),
        ((*TEMPLATE, "template", "spec", "containers", 0, "imag"), "x", "imag"),
        ((*TEMPLATE, "podFailurePolicy", "rules"), [{"onExitCodes": {"operator": "In", "values": [2]}}], "action"),
    ],
)
def test_a_mistake_in_a_manifest_is_seen(path: tuple[str | int, ...], value: Any, named: str) -> None:
    manifest = copy.deepcopy(render.jobset(job()))
    part: Any = manifest
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    assert [named in mistake for mistake in render.mistakes(manifest)] == [True]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"slice": "v5e-17"}, "v5e-17"),
        ({"bucket": "gs://mine"}, "gs://mine"),
        ({"name": "A b"}, "A b"),
        ({"command": ("ls",)}, "experiments"),
    ],
)
def test_wrong_settings_are_refused_by_name(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        job(**changed)


def test_commands_for_xpk_and_queued_resources_name_the_slice() -> None:
    assert "--tpu-type=v5litepod-16" in render.xpk(job())
    assert "--restart-on-exit-codes=1,74,75,76" in render.xpk(job())
    create, *_, delete = render.queued(job(slice="v5p-64"))
    assert "--accelerator-type=v5p-128" in create
    assert "queued-resources delete" in delete


@pytest.mark.slow
def test_a_flag_that_the_binary_does_not_have_is_seen() -> None:
    """The first that is wrong is named, after those that are right."""
    for wrong in ("--resme", "--config.stps=3"):
        with pytest.raises(ValueError, match=wrong.removeprefix("--").partition("=")[0]):
            render.check_command([*COMMAND, "--workdir=gs://b/runs/a", "--resume", wrong])


def test_the_script_says_what_is_wrong_in_one_line(tmp_path: pathlib.Path) -> None:
    script = pathlib.Path(render.__file__)
    ended = subprocess.run(
        [sys.executable, script, "--slice=v9", "--bucket=abc", "--image=i", "--", *COMMAND],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == Exit.USER_ERROR
    assert len(ended.stderr.splitlines()) == 1
