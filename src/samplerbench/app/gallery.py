"""The gallery: every experiment of the source notebooks, run here, with pictures and numbers.

    make gallery                        all of them, some minutes each
    make gallery ARGS="n1/ddim n2"      some, by name or by notebook

Each run goes to multirun/ as any other; its pictures and its report are then copied to
multirun/gallery/<experiment>/, and the index, README.md there, is written anew from what
there is. A run that fails keeps the pictures of the one before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from samplerbench.app.main import conf_directory, run_name

GALLERY = Path("multirun/gallery")
REPORT = "report.txt"
KEPT = ("*.png", "*.gif", REPORT)
TITLES = {
    "n0": "N0: score-based diffusion models (talk 8)",
    "n1": "N1: introduction to score-based generative modelling",
    "n2": "N2: a score-based model of a one-dimensional distribution",
    "shapes": "The shapes of published tables",
}


def experiments(words: list[str]) -> list[str]:
    """The notebooks' experiments, or those among them that were named."""
    folder = conf_directory() / "experiment"
    paths = [path for group in TITLES for path in sorted(folder.glob(f"{group}/*.yaml"))]
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    chosen = [name for name in names if not words or {name, name.split("/")[0]} & set(words)]
    if not chosen:
        sys.exit(
            f"samplerbench: no experiment {' '.join(words)}; one of {', '.join(sorted(names))}"
        )
    return chosen


def run(name: str) -> bool:
    """Run an experiment and keep its pictures; whether it ended well."""
    directory = Path("multirun") / run_name()
    words = [f"experiment={name}", "logger=none", f"hydra.run.dir={directory}"]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "samplerbench", *words], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    print(f"{name}: {time.perf_counter() - began:.0f} s, status {done.returncode}", flush=True)
    if done.returncode != 0:
        return False
    place = GALLERY / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for pattern in KEPT:
        for path in sorted(directory.glob(pattern)):
            shutil.copy(path, place / path.name)
    return True


def index() -> str:
    """The gallery's page, from what it holds, as Markdown."""
    lines = [
        "# Gallery",
        "",
        "Every experiment of the three source notebooks, and the shapes of some published tables,",
        "as `make gallery` runs them, in their default setting: minutes on two cores each.",
        "`fidelity=notebook` runs a notebook's own numbers.",
    ]
    notebook = ""
    for name in experiments([]):
        place = GALLERY / name
        if not place.is_dir():
            continue
        if name.split("/")[0] != notebook:
            notebook = name.split("/")[0]
            lines += ["", f"## {TITLES[notebook]}"]
        yaml = (conf_directory() / "experiment" / f"{name}.yaml").read_text().splitlines()
        comment = [line.removeprefix("# ") for line in yaml if line.startswith("# ")]
        lines += ["", f"### {name}", "", *comment[1:], "", f"`samplerbench experiment={name}`", ""]
        pictures = sorted([*place.glob("*.gif"), *place.glob("*.png")])
        lines += [f"![{path.stem}]({name}/{path.name})" for path in pictures]
        report = place / REPORT
        if report.exists():
            kept = report.read_text().splitlines()
            text = "\n".join(line for line in kept if not line.startswith(("figure:", "table:")))
            lines += [
                "",
                "<details><summary>Its numbers</summary>",
                "",
                "```",
                text.strip(),
                "```",
                "",
            ]
            lines += ["</details>"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what was asked for and write the index; status 1 if an experiment failed."""
    failed = [name for name in experiments(sys.argv[1:]) if not run(name)]
    (GALLERY / "README.md").write_text(index())
    if failed:
        sys.exit(f"samplerbench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
