"""README and the other documents say what is so: Python runs, links lead somewhere, and commands have the flags that they name."""

import importlib
import pathlib
import re
import shlex

import pytest
from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted({line.split("#")[0] for line in re.sub(r"\\\n\s*", "", README).splitlines() if line.startswith("python -m ")})

DOCUMENTS = sorted((ROOT / "docs").glob("*.md")) + [ROOT / name for name in ("WORKSPACE.md", "CONTRIBUTING.md", "launch/README.md")]
CONFIGURED_AS = {"plan_training": "train", "supervise": "train"}


@pytest.mark.slow
def test_python_runs_as_it_stands(capsys) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)  # it is ours
    assert 0.5 < names["turn"].measured < 0.57  # type: ignore[attr-defined]
    assert "dense" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_flags_that_they_name(command: str) -> None:
    """Each binary's own test runs it; here its settings are looked up."""
    _, _, module, *flags = shlex.split(command)
    package, name = module.split(".")
    assert (ROOT / package / f"{name}.py").exists()
    assert list((ROOT / "tests" / package).rglob(f"{name}*_test.py")), f"no test of {module}"
    _look_up(package, name, flags)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_commands_of_other_documents_have_the_flags_that_they_name(document: pathlib.Path) -> None:
    text = re.sub(r"\\\n\s*", "", document.read_text(encoding="utf-8"))
    lines = re.findall(r"^ *(python -m [^#\n]+)", text, re.MULTILINE) + re.findall(r"`(python -m [^`]+)`", text)
    for _, _, module, *flags in map(shlex.split, lines):
        package, _, name = module.partition(".")
        if package in ("experiments", "kernels") and name.isidentifier() and name != "NAME":
            _look_up(package, name, [flag for flag in flags if flag.startswith("--")])


def _look_up(package: str, name: str, flags: list[str]) -> None:
    given = dict(flag.removeprefix("--").split("=", 1) if "=" in flag else (flag.removeprefix("--"), "") for flag in flags)
    if package == "kernels":
        text = (ROOT / package / f"{name}.py").read_text(encoding="utf-8")
        assert all(f'"{flag}"' in text for flag in given), given
        return
    file, _, preset = given.pop("config", f"experiments/configs/{CONFIGURED_AS.get(name, name)}.py:").partition(":")
    config = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(*([preset] if preset else []))
    for flag in given:
        if flag.startswith("config."):
            _there(config, flag.split(".")[1:])


def _there(config: ConfigDict, keys: list[str]) -> None:
    for key in keys:
        named = key if key in config else f"{key}_"  # `for` is a word of Python's
        assert named in config, (keys, list(config))
        config = config[named]


def test_links_lead_somewhere_and_it_is_short() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    assert len(README.splitlines()) <= 150
