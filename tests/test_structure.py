"""The structure of the package: a part imports only from parts below it."""

import re
from pathlib import Path

import samplerbench
from samplerbench import app

ROOT = Path(samplerbench.__file__).parent
#: From the bottom to the top: a part imports from itself and from those before it.
PARTS = [
    *("version", "errors", "paths", "files", "environment", "memory", "identity"),
    *("core", "samplers", "datasets", "networks", "objectives", "metrics", "training"),
    *("bench", "verify", "logs", "figures", "report", "app", "library"),
]
#: The same within the application.
APP_PARTS = ["terminal", "config", "folder", "job", "commands", "main"]


def imported(path: Path, package: str) -> set[str]:
    """The parts of a package that a module imports from, also within functions."""
    line = rf"^ *from {re.escape(package)}(\.\w+)?\S* import (\([^)]*\)|.+)"
    found = set()
    for below, names in re.findall(line, path.read_text(encoding="utf-8"), re.M):
        found |= {below[1:]} if below else {*re.findall(r"(\w+)(?: as \w+)?", names)}
    return found


def imports_upwards(folder: Path, package: str, parts: list[str]) -> list[str]:
    """The imports of a package that point from one of its parts to a part above it."""
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        part = path.relative_to(folder).with_suffix("").parts[0]
        if part in ("__init__", "__main__"):
            continue
        assert part in parts, f"{part} is missing in the list of parts"
        above = parts[parts.index(part) + 1 :]
        found = imported(path, package) & {*above}
        wrong += [f"{path.relative_to(folder)} imports {name}" for name in sorted(found)]
    return wrong


def test_imports_point_downwards():
    assert imports_upwards(ROOT, "samplerbench", PARTS) == []
    assert imports_upwards(ROOT / "app", "samplerbench.app", APP_PARTS) == []


def test_every_module_of_the_app_is_in_its_map():
    named = set(re.findall(r"\w+", str(app.__doc__)))
    modules = {path.stem for path in (ROOT / "app").rglob("*.py")}
    assert modules - {"__init__"} <= named
