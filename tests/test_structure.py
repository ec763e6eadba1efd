"""The structure of the package: a part imports only from parts below it."""

import ast
from pathlib import Path

import samplerbench

ROOT = Path(samplerbench.__file__).parent
#: From the bottom to the top: a part imports from itself and from those before it.
PARTS = [
    *("version", "errors", "extras", "files", "environment", "identity"),
    *("core", "samplers", "datasets", "networks", "objectives", "metrics", "training"),
    *("bench", "verify", "figures", "report", "logs", "app", "library"),
]


def imported(path: Path) -> set[str]:
    """The parts of this package that a module imports from, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "samplerbench":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("samplerbench."):
            found.add(str(node.module).split(".")[1])
    return found


def test_imports_point_downwards():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        part = path.relative_to(ROOT).with_suffix("").parts[0]
        if part in ("__init__", "__main__"):
            continue
        assert part in PARTS, f"{part} is missing in PARTS"
        above = PARTS[PARTS.index(part) + 1 :]
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in imported(path) & {*above}]
    assert wrong == []
