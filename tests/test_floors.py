"""Imports go down the floors of the package, never up, never in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tfrlhf"

FLOORS = [
    {"types", "checks", "kept", "ops", "losses"},
    {"models", "data", "rewards"},
    {"rollout", "evaluation"},
    {"trainers", "callbacks", "export", "presets"},
    {"cli", "feedback"},
]
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def read_imports(package):
    """Yields (file, part that imports, part that is imported).

    A part is a module or package directly under the root. Imports within one
    part are left out, and so is the root's `__init__.py`, which only lists
    names.
    """
    for file in sorted(package.rglob("*.py")):
        inside = file.relative_to(package)
        if inside == Path("__init__.py"):
            continue
        importer = inside.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            for name in imported_names(node, package.name, inside):
                imported = name.split(".")[1]
                if imported != importer:
                    yield inside.as_posix(), importer, imported


def imported_names(node, root, inside):
    """Full names under the root that one syntax node imports."""
    if isinstance(node, ast.Import):
        names = [
            f"{root}.*" if alias.name == root else alias.name
            for alias in node.names
        ]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = [root, *inside.parts][: -node.level]
            base = ".".join([*above, *([base] if base else [])])
        names = [f"{base}.{alias.name}" for alias in node.names]
    else:
        names = []
    return [name for name in names if name.startswith(f"{root}.")]


def find_violations(package):
    violations = []
    uses = {}
    for path in sorted(package.iterdir()):
        part = path.name.removesuffix(".py")
        is_part = path.suffix == ".py" or any(path.glob("*.py"))
        if is_part and part != "__init__" and part not in FLOOR_OF:
            violations.append(f"{path.name} is on no floor")
    for file, importer, imported in read_imports(package):
        uses.setdefault(importer, set()).add(imported)
        if imported not in FLOOR_OF:
            # A public name of the root: it would hide the floor it is on.
            violations.append(f"{file} imports {imported} from the root")
        elif FLOOR_OF[imported] > FLOOR_OF.get(importer, len(FLOORS)):
            violations.append(f"{file} imports {imported}, a floor above")
    try:
        graphlib.TopologicalSorter(uses).prepare()
    except graphlib.CycleError as error:
        violations.append("a circle: " + " -> ".join(error.args[1]))
    return violations


def test_package_keeps_the_floors():
    assert not find_violations(PACKAGE)


def test_package_is_found():
    parts = {importer for _, importer, _ in read_imports(PACKAGE)}
    assert {"ops", "losses"} <= parts


@pytest.mark.parametrize(
    ("files", "violation"),
    [
        (
            {"ops/a.py": "import tfrlhf.models.policy"},
            "imports models, a floor",
        ),
        ({"ops/a.py": "from tfrlhf import models"}, "imports models, a floor"),
        ({"ops/a.py": "from ..data import read"}, "imports data, a floor"),
        ({"ops/a.py": "from .. import data"}, "imports data, a floor"),
        (
            {"ops/a.py": "def f():\n    from tfrlhf.cli import main"},
            "imports cli, a floor",
        ),
        ({"types.py": "from tfrlhf.data import read"}, "imports data, a floor"),
        ({"ops/a.py": "from tfrlhf import Policy"}, "imports Policy from the"),
        ({"ops/a.py": "import tfrlhf"}, "imports * from the root"),
        ({"tools/a.py": ""}, "tools is on no floor"),
        ({"tools.py": ""}, "tools.py is on no floor"),
        (
            {
                "models/a.py": "from tfrlhf.data.b import c",
                "data/b.py": "from tfrlhf.models import a",
            },
            "a circle",
        ),
    ],
)
def test_violations_are_found(tmp_path, files, violation):
    package = write_package(tmp_path, files)
    assert any(violation in found for found in find_violations(package))


def test_what_is_allowed_passes(tmp_path):
    files = {
        "__init__.py": "from tfrlhf.cli import main",
        "losses/__init__.py": "from tfrlhf.losses.a import b",
        "losses/a.py": "from tfrlhf import ops\nfrom . import b\nimport os",
        "trainers/a.py": "from tfrlhf.models import x\nfrom .b import y",
        "cli.py": "import tfrlhf.trainers\nimport tfrlhf_other.cli",
    }
    assert not find_violations(write_package(tmp_path, files))


def write_package(folder, files):
    package = folder / "tfrlhf"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, "utf-8")
    return package
