"""Each contract of docs/contracts.md has tests that exist, and that CI runs; and tests stand at the path of what they test."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
OF_THE_WHOLE = {"contracts", "untrusted_input"}
"""Of all source files together."""
OF_DOCUMENTS = {"readme", "examples", "tutorials"}
"""Of README.md, of the examples in docstrings, and of a folder."""


def functions_of(file: pathlib.Path) -> dict[str, str]:
    """Each test function of a file, and its decorators."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name: " ".join(map(ast.unparse, node.decorator_list)) for node in functions}


def test_each_contract_names_tests_that_ci_runs():
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("| contract", "|---"))]
    wrong = [line for line in lines if not re.search(r"`tests/\S+::test_\w+`", line)]
    assert len(lines) > 40
    for path, name in re.findall(r"`(tests/\S+?)::(\w+)`", text):
        found = functions_of(ROOT / path) if (ROOT / path).is_file() else {}
        if name not in found or found[name].startswith("pytest.mark.long"):
            wrong.append(f"{path}::{name}")
    assert wrong == []


def test_tests_stand_at_the_path_of_what_they_test():
    """`X_test.py`, or `X_ASPECT_test.py`, for an `X.py` or a document; `init_test.py` for an `__init__.py`."""
    astray = []
    for file in sorted((ROOT / "tests").rglob("*_test.py")):
        folder, name = ROOT / file.parent.relative_to(ROOT / "tests"), file.stem.removesuffix("_test")
        sources = {each.stem.replace("-", "_") for suffix in ("py", "md") for each in folder.glob(f"*.{suffix}")}
        modules = OF_THE_WHOLE if folder == ROOT else {"init" if each == "__init__" else each for each in sources}
        modules |= OF_DOCUMENTS if folder == ROOT / "docs" else set()
        if not any(name == each or name.startswith(f"{each}_") for each in modules):
            astray.append(str(file.relative_to(ROOT)))
    assert astray == []
