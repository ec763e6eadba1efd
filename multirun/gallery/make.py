"""The gallery: the main job and all experiments of the notebooks, with pictures and numbers.

    make gallery                        all of them, some minutes each, and the table of orders
    make gallery ARGS="n1/ddim n2"      some, by name or by notebook
    make gallery ARGS=orders            only the table of orders

The folders of the runs are in multirun/ as usual; pictures, report and run time are then copied to
multirun/gallery/<experiment>/. orders.md has the measured order of every sampler of conf/sampler/.
The index, README.md, is written from the existing folders. If a run fails, the pictures of the run
before stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

from samplerbench.app.commands.examine import ON, SCHEDULES, order_text, settings
from samplerbench.app.commands.list import order
from samplerbench.app.config.compose import run_name
from samplerbench.app.config.folders import conf_directory
from samplerbench.bench.cell import sampler_name
from samplerbench.identity import settings_text
from samplerbench.verify.orders import STEPS, measured_order

GALLERY = Path("multirun/gallery")
REPORT = "report.txt"
SECONDS = "seconds.txt"
ORDERS = "orders"
#: The figures of `grids.py`.
GRIDS, TWIN = GALLERY / "grids" / "samplers.png", GALLERY / "grids" / "twin_trap.png"
#: A figure of `samplerbench suite`.
SUITE = GALLERY / "suite" / "v2" / "suite_shares.png"
#: Ends the name of the folder of an experiment with fidelity=notebook, which `make gallery` leaves.
OWN_SETTING = "_notebook"
#: What such a folder was run with; the notebooks have no repetitions, so no intervals.
OWN_WORDS = ("fidelity=notebook", "repetitions=4")
KEPT = ("*.png", "*.gif", REPORT)
MAIN = "main"
#: Begins the command of an experiment that compares several jobs, in the comment of its yaml.
COMPARE, MULTIRUN = "# Gallery: samplerbench ", "-m"
#: Comments that the index leaves out: it shows the command itself.
LEFT_OUT = ("# @package", COMPARE)
#: The entries that the README shows; they come first: the main job, and an experiment.
FIRST = (MAIN, "budget")
TITLES = {
    "n0": "N0: score-based diffusion models (talk 8)",
    "n1": "N1: introduction to score-based generative modelling",
    "n2": "N2: a score-based model of a one-dimensional distribution",
    "shapes": "The shapes of published tables",
    "images": "Real images",
}


def experiments(words: list[str]) -> list[str]:
    """The main job and all experiments of the gallery, or only the named ones."""
    folder = conf_directory() / "experiment"
    paths = [path for group in TITLES for path in sorted(folder.glob(f"{group}/*.yaml"))]
    grouped = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    names = [*FIRST, *grouped]
    known = {*names, *(name.split("/")[0] for name in names)}
    unknown = [word for word in words if word not in known]
    if unknown:
        sys.exit(
            f"samplerbench: no experiment {' '.join(unknown)}; one of "
            f"{', '.join([*sorted(names), ORDERS])}"
        )
    return [name for name in names if not words or {name, name.split("/")[0]} & set(words)]


def run(name: str) -> bool:
    """Run an experiment and keep its pictures; return whether it succeeded."""
    directory = Path("multirun") / run_name()
    words = _words(name)
    many = MULTIRUN in words
    folder = "hydra.sweep.dir" if many else "hydra.run.dir"
    began = time.perf_counter()
    status = _command([*words, "logger=none", f"{folder}={directory}"])
    seconds = time.perf_counter() - began
    print(f"{name}: {seconds:.0f} s, status {status}", flush=True)
    if status != 0:
        return False
    if many:  # one figure and one table of all its jobs
        page = directory / "report"
        if _command(["report", str(directory), f"out={page}", "figures=png"]) != 0:
            return False
        directory = page / "figures"
        shutil.copy(page / "table.md", directory / REPORT)
    place = GALLERY / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for pattern in KEPT:
        for path in sorted(directory.glob(pattern)):
            shutil.copy(path, place / path.name)
    (place / SECONDS).write_text(f"{seconds:.0f}\n", encoding="utf-8")
    return True


def _command(words: list[str]) -> int:
    """Run samplerbench; return its exit status."""
    command = [sys.executable, "-m", "samplerbench", *words]
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


def _words(name: str) -> list[str]:
    """The words after `samplerbench` for an entry: those of its yaml's line "Gallery:", if any."""
    if name == MAIN:
        return []
    yaml = (conf_directory() / f"experiment/{name}.yaml").read_text(encoding="utf-8")
    compared = (line.partition(COMPARE)[2].split() for line in yaml.splitlines())
    return next(filter(None, compared), [f"experiment={name}"])


def orders() -> str:
    """The orders of all samplers of conf/sampler/, declared and measured, as Markdown."""
    titles = [f"{law}, {path}" for law, path in ON]
    lines = [
        "# Measured orders",
        "",
        f"The p of an error ∝ N^−p, by least squares over N = {', '.join(map(str, STEPS))}",
        "between the noise-to-signal ratios 1.9 and 0.2, with the exact denoiser of a Gaussian and",
        "of a mixture, on three paths. The error of a deterministic sampler is the distance of its",
        "states to the probability flow. The error of a sampler with noise (weak), up to",
        f"N = {STEPS[2]}, is that of its mean and covariance on the Gaussian, and that of its law",
        "by quadrature on a mixture on a line.",
        "",
        "*exact*: an error below 1e-9. –: not measured, as for Langevin and adaptive samplers. The",
        "field of a Gaussian is linear, so some methods look better there.",
        "`make gallery ARGS=orders` writes this table.",
        "`samplerbench check` prints one with law and contract.",
        "",
        "| " + " | ".join(["sampler", "declared", *titles]) + " |",
        "|---|---|" + "---:|" * len(titles),
    ]
    for path in sorted((conf_directory() / "sampler").glob("*.yaml")):
        of_yaml = settings(path.stem)
        # and the variants that the tests check, such as other orders of a method
        held = [one for one in type(of_yaml[0]).variants() if one.order and not one.adaptive]
        for sampler in dict.fromkeys([*of_yaml, *held]):
            found = [order_text(measured_order(sampler, SCHEDULES[on], law)) for law, on in ON]
            name = sampler_name(path.stem, settings_text(sampler))
            lines.append("| " + " | ".join([name, order(sampler), *found]) + " |")
    return "\n".join(lines) + "\n"


def index() -> str:
    """The gallery's page as Markdown, from the existing folders."""
    lines = [
        "# Gallery",
        "",
        "The main job, every experiment of the three source notebooks, and the shapes of some",
        "published tables. `make gallery` runs them with their default settings. Each takes",
        "minutes on two cores. `fidelity=notebook` uses the settings of the notebook. The seconds",
        "are those of the whole command, on the machine that wrote this page.",
    ]
    if (GALLERY / f"{ORDERS}.md").exists():
        lines += [
            "",
            f"[The orders of all samplers, declared and measured]({ORDERS}.md), on three paths:",
            "on a Gaussian, and for samplers without noise also on a mixture.",
        ]
    if SUITE.exists():
        lines += [
            "",
            "## The suite",
            "",
            "All samplers on fixed tasks (`samplerbench suite`): version 2, its results and its",
            "page `index.html`, which a browser opens from a clone; see",
            "[docs/suite.md](../../docs/suite.md).",
            "",
            f"![share of problems solved against evaluations]({SUITE.relative_to(GALLERY)})",
        ]
    if GRIDS.exists():
        lines += [
            "",
            "## Samplers at equal evaluations",
            "",
            "On a common grid, and each on the grid that is best for it (`make grids`); see",
            "[docs/grids.md](../../docs/grids.md#a-ranking-depends-on-the-grid).",
            "",
            f"![samplers on a common grid, and each on its own]({GRIDS.relative_to(GALLERY)})",
        ]
    if TWIN.exists():
        lines += [
            "",
            "## Grids that are designed on a Gaussian twin",
            "",
            "What they gain on the twin and on the digits: wrong for multistep methods",
            "(`make grids ARGS=trap`); see",
            "[docs/grids.md](../../docs/grids.md#the-trap-of-the-gaussian-twin).",
            "",
            f"![gains on the twin and on the digits]({TWIN.relative_to(GALLERY)})",
        ]
    notebook = ""
    for name in experiments([]):
        own = f"{name}{OWN_SETTING}"
        group = name.split("/")[0]
        if group in TITLES and group != notebook and (GALLERY / name).is_dir():
            notebook = group
            lines += ["", f"## {TITLES[notebook]}"]
        file = "config.yaml" if name == MAIN else f"experiment/{name}.yaml"
        yaml = (conf_directory() / file).read_text(encoding="utf-8").splitlines()
        # the comment at its top
        top = takewhile(lambda line: line.startswith("# "), yaml)
        comment = [line.removeprefix("# ") for line in top if not line.startswith(LEFT_OUT)]
        lines += _entry(name, _words(name), comment)
        lines += _entry(
            own, [*_words(name), *OWN_WORDS], ["As in the notebook, with four repetitions."]
        )
    return "\n".join(lines) + "\n"


def _entry(name: str, words: list[str], comment: list[str]) -> list[str]:
    """The part of the page about one folder of the gallery; empty if it does not exist."""
    place = GALLERY / name
    if not place.is_dir():
        return []
    seconds = place / SECONDS
    took = f": {seconds.read_text(encoding='utf-8').strip()} s" if seconds.exists() else ""
    command = " ".join(["samplerbench", *words])
    lines = ["", f"### {name}", "", *comment, "", f"`{command}`{took}", ""]
    pictures = sorted([*place.glob("*.gif"), *place.glob("*.png")])
    lines += [f"![{path.stem}]({name}/{path.name})" for path in pictures]
    report = place / REPORT
    kept = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    text = "\n".join(line for line in kept if not line.startswith(("figure:", "table:")))
    if text.strip():
        lines += ["", "<details><summary>Its numbers</summary>", "", "```", text.strip(), "```"]
        lines += ["", "</details>"]
    return lines


def main() -> None:
    """Run the named experiments and write the index; status 1 if one failed."""
    words = sys.argv[1:]
    chosen = [] if words == [ORDERS] else experiments([word for word in words if word != ORDERS])
    failed = [name for name in chosen if not run(name)]
    if not words or ORDERS in words:
        (GALLERY / f"{ORDERS}.md").write_text(orders(), encoding="utf-8")
    (GALLERY / "README.md").write_text(index(), encoding="utf-8")
    if failed:
        sys.exit(f"samplerbench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
