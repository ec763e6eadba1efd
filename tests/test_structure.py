"""The structure of the package: which part may import which."""

import ast
from pathlib import Path

import samplerbench

ROOT = Path(samplerbench.__file__).parent
#: From the ground up: a part imports from those before it, and from its own.
PARTS = [
    *("version", "errors", "extras", "files", "environment"),
    *("core", "samplers", "datasets", "networks", "objectives", "metrics", "training"),
    *("bench", "verify", "figures", "report", "logs", "app", "library"),
]


def imported(path: Path) -> set[str]:
    """The parts of this package that a module imports from, wherever in it."""
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
        assert part in PARTS, f"say where {part} is"
        above = PARTS[PARTS.index(part) + 1 :]
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in imported(path) & {*above}]
    assert wrong == []
