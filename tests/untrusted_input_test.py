"""No source file runs, unpickles or fetches what a file from outside names, nor hands an image to another program."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAYERS = ("kernels", "flowjax", "experiments")
FILES = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for layer in LAYERS for file in sorted((ROOT / layer).rglob("*.py"))}


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


def test_pillow_is_told_which_formats_it_may_read():
    assert {file: lines for file, source in FILES.items() if (lines := opens_any_image(source))} == {}


def test_nothing_runs_what_a_file_names():
    """Whoever adds such a call says in `KNOWN` whose word it takes. The kernels' commands start compilers and read no files of users."""
    assert {file: found for file, source in FILES.items() if (found := running(source)) and not file.startswith("kernels")} == KNOWN


@pytest.mark.parametrize(
    "source", ["PIL.Image.open(file)", "Image.open(file, 'r')", "from PIL.Image import open", "plt.imread(file)", "PIL.ImageFile.Parser()"]
)
def test_every_way_to_open_any_image_is_seen(source):
    """The check itself."""
    assert opens_any_image(source)
    assert not opens_any_image("PIL.Image.open(file, formats=('PNG',)); open(file); PIL.Image.fromarray(x)")


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
def test_every_call_that_runs_something_is_seen(source):
    """The check itself."""
    assert running(source)


def test_all_three_layers_are_there():
    """Against a rename that would leave nothing to check."""
    assert {file.split("/")[0] for file in FILES} == set(LAYERS)
