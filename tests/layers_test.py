"""Imports run one way, kernels → flowjax → experiments, and nothing that ships needs what only the tests install."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAYERS = ("kernels", "flowjax", "experiments")
TEST_ONLY = {"pytest", "hypothesis", "beartype", "mlxtend", "coverage", "ruff", "mypy", "xdist", "tensorboard", "tests"}
FILES = [file for layer in LAYERS for file in sorted((ROOT / layer).rglob("*.py"))]


def imported(source: str, package: tuple[str, ...]) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it: lazily, relatively or by a constant name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, level=0):
                found.add(module)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = [*package[: len(package) - level + 1], *([module] if module else [])]
                found |= {".".join([*base, alias.name]) for alias in names}
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"), args=[ast.Constant(name), *_]
            ):
                found.add(name)
    return found


def opens_any_image(source: str) -> list[int]:
    """Lines that give Pillow a file without saying which formats may be read: some are handed to other programs (EPS to Ghostscript)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="open", value=ast.Name(id="Image") | ast.Attribute(attr="Image")), keywords=keywords):
                found += [] if any(keyword.arg == "formats" for keyword in keywords) else [node.lineno]
            case ast.Attribute(attr="imread" | "Parser" | "ImageFile") | ast.ImportFrom(module="PIL.Image" | "PIL.ImageFile"):
                found.append(node.lineno)
    return found


def forbidden(layer: str, names: set[str]) -> set[str]:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    return {name for name in names if name.split(".")[0] in above | TEST_ONLY}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file):
    """No file imports from a layer above its own, nor a package of the test extra."""
    parts = file.relative_to(ROOT).parts
    assert forbidden(parts[0], imported(file.read_text(encoding="utf-8"), parts[:-1])) == set()


def test_pillow_is_told_which_formats_it_may_read():
    assert {str(file): lines for file in FILES if (lines := opens_any_image(file.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "source", ["PIL.Image.open(file)", "Image.open(file, 'r')", "from PIL.Image import open", "plt.imread(file)", "PIL.ImageFile.Parser()"]
)
def test_every_way_to_open_any_image_is_seen(source):
    """The check itself."""
    assert opens_any_image(source)
    assert not opens_any_image("PIL.Image.open(file, formats=('PNG',)); open(file); PIL.Image.fromarray(x)")


LOWER = ("flowjax/data", "flowjax/oracle", "flowjax/runtime")
"""Rooms that know nothing of analysis, training or reports."""
UPPER = ("flowjax.analysis", "flowjax.stages", "flowjax.training", "flowjax.reporting", "flowjax.metrics", "flowjax.sampling")


@pytest.mark.parametrize("room", LOWER)
def test_data_oracle_and_runtime_know_no_analysis(room):
    upward = {
        f"{file.name}: {name}"
        for file in (ROOT / room).rglob("*.py")
        for name in imported(file.read_text(encoding="utf-8"), file.relative_to(ROOT).parts[:-1])
        if name.startswith(UPPER)
    }
    assert upward == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_module_and_public_name_says_what_it_is(file):
    module = ast.parse(file.read_text(encoding="utf-8"))
    named = [node for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    silent = [node.name for node in named if ast.get_docstring(node) is None]
    if module.body and ast.get_docstring(module) is None:
        silent.append("the module")
    assert silent == []


@pytest.mark.parametrize(
    "source",
    [
        "import flowjax.path",
        "import numpy, flowjax",
        "from flowjax import path",
        "def f():\n    from experiments.configs import digits",
        "from ...flowjax import path",
        "from ... import experiments",
        "import importlib\nimportlib.import_module('flowjax.path')",
        "if True:\n    import pytest",
        "from hypothesis import given",
    ],
)
def test_every_way_to_import_upwards_is_seen(source):
    """The check itself: in a file of kernels/posterior each of these is refused."""
    assert forbidden("kernels", imported(source, ("kernels", "posterior")))


def test_imports_that_are_allowed_pass():
    """The check itself: same layer, a layer below, and other people's packages."""
    source = "from .partial import merge\nfrom . import blocks\nfrom kernels.double import to64\nimport jax, numpy"
    assert not forbidden("kernels", imported(source, ("kernels", "posterior")))
    assert not forbidden("experiments", imported("from flowjax.oracle import Oracle\nimport kernels", ("experiments",)))


RUNS = {
    f"{module}.{name}"
    for module, names in {
        "builtins": ("eval", "exec", "compile", "__import__"),
        "importlib": ("import_module",),
        "runpy": ("run_path", "run_module"),
        "ast": ("literal_eval",),  # runs nothing, but fails under threads: flowjax/data/formats/numpy_file.py
        "os": ("system", "popen", "startfile"),
        "subprocess": ("run", "call", "check_call", "check_output", "Popen"),
        "pickle": ("load", "loads", "Unpickler"),
        "marshal": ("load", "loads"),
        "shelve": ("open",),
        "joblib": ("load",),
        "torch": ("load",),
        "shutil": ("unpack_archive",),
        "webbrowser": ("open",),
        "requests": ("get",),
        "urllib.request": ("urlopen", "urlretrieve"),
    }.items()
    for name in names
}
"""Calls that run, start, unpickle or fetch what their argument names."""
KNOWN = {
    "flowjax/__init__.py": {"importlib.import_module"},  # of the module of a public name
    "experiments/common/factories.py": {"importlib.import_module"},  # of --config.encoder.factory and model.factory, which the user names
    "experiments/common/app.py": {"runpy.run_path"},  # of --config=FILE.py, which the user names
    "experiments/reproduce.py": {"subprocess.run"},  # binaries of this project
    "experiments/supervise.py": {"subprocess.Popen"},  # the command that the user gives
}


def running(source: str) -> set[str]:
    """Calls in a file by which something is imported, started, fetched or unpickled; classes derived from such names too."""
    tree = ast.parse(source)
    modules = {alias.asname or alias.name: alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        for used in [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else ():
            text = ast.unparse(used)
            head, _, last = text.rpartition(".")
            full = f"{modules.get(head, head)}.{last}" if head else names.get(text, f"builtins.{text}")
            found |= {full} & RUNS
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.add("allow_pickle")
    return found


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.relative_to(ROOT).parts[0] != "kernels"], ids=lambda f: str(f.relative_to(ROOT))
)
def test_nothing_runs_what_a_file_names(file):
    """Whoever adds such a call says here whose word it takes."""
    assert running(file.read_text(encoding="utf-8")) == KNOWN.get(str(file.relative_to(ROOT)), set())


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "import pickle\npickle.load(f)",
        "import pickle as p\np.loads(f)",
        "from pickle import loads as f\nf(x)",
        "import subprocess\nclass A(subprocess.Popen): pass",
        "import os\nos.system(x)",
        "import urllib.request\nurllib.request.urlopen(x)",
        "import torch\ntorch.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "from importlib import import_module\nimport_module(x)",
    ],
)
def test_every_such_call_is_seen(source):
    """The check itself."""
    assert running(source)


def test_all_three_layers_are_there():
    """Against a rename that would leave nothing to check."""
    assert {file.relative_to(ROOT).parts[0] for file in FILES} == set(LAYERS)
