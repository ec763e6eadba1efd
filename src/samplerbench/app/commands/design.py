"""`samplerbench design [RUN]`: design the best noise levels for a sampler and its evaluations.

    samplerbench design sampler=[heun,unipc] nfe=[6,10,16] dataset=grid_mixture
    samplerbench design sampler=ddim sampler.ddim.eta=0 nfe=10 dataset=grid_mixture carry=two_moons
    samplerbench design RUN sampler=heun nfe=10
    samplerbench design sampler=unipc nfe=10 dataset=two_moons out=levels.json

For each sampler and number of evaluations the table has the best standard grid, the designed grid,
and how many times nearer the designed one is to the converged run, with a 95 % interval from starts
that the design has not used. If a design is not shown to be better, the result is the standard
grid. The noise levels follow.

A second table shows whether each design also helps elsewhere: on the learned denoiser of RUN, on
the data sets of `carry=[…]`, for the other samplers of the command at as many steps, and, for a
sampler with η, at η = `eta` (0.5). It can be worse there than the standard grid.

RUN is the folder of a run; its data, path and denoisers are used. Without RUN, `dataset`,
`schedule` and `denoiser` (oracle, empirical, or pretrained with `model` and `clip_x0`) are as in a
job. Other words are as in a job too: `sampler`, `start`, `nfe` or `steps`, `final`, `law`, `seed`,
each with its settings, and `grid.criterion` (paired, kl, spectrum), `grid.budget`, `grid.seed` and
the other settings of grid=designed. `out` is a new file: .json for the levels (σ/α, the words for a
job, and lists for diffusers); .yaml for one design as a grid, for your conf/grid/; or .png, .pdf or
.svg for a figure of the gains, here and on other data and denoisers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from samplerbench.app.commands.output import new_path, whole_or_nothing
from samplerbench.app.commands.words import read_words
from samplerbench.app.terminal import console
from samplerbench.errors import require

#: The keys of a job that are used here; `GROUPS` are those with settings.
USED = (
    *("sampler", "nfe", "steps", "dataset", "schedule", "denoiser", "start", "final", "law"),
    *("grid", "seed", "device", "n_train", "model", "clip_x0"),
)
GROUPS = ("sampler", "dataset", "schedule", "start", "grid")
#: The suffixes of `out`: levels, or the figure of the gains.
WRITTEN = (".json", ".yaml", ".png", ".pdf", ".svg")
#: Keys that a run determines.
OF_RUN = ("dataset", "schedule", "denoiser", "law", "n_train", "model", "clip_x0")


def main(words: list[str]) -> None:
    """Print the tables and the levels."""
    runs, values = read_words("design", words, ("carry", "eta", "out", *USED), groups=GROUPS)
    require(len(runs) <= 1, "design", " ".join(runs), "at most one folder of a run")
    out = values.pop("out", None)
    suffix = "" if out is None else Path(out).suffix
    if out is not None:
        require(suffix in WRITTEN, "out", out, f"a file of {', '.join(WRITTEN)}")
        new_path(Path(out), "file")
    given = values.get("grid", "designed")
    require(given == "designed", "grid", given, "left out: this command designs it")
    for key in values if runs else ():
        allowed = "left out: the run has it"
        require(key.partition(".")[0] not in OF_RUN, key, values[key], allowed)
    laws = [name for name in values.pop("carry", "").strip("[]").split(",") if name]
    eta = values.pop("eta", None)
    # slow: imports torch
    from samplerbench.app.config.compose import make_member
    from samplerbench.app.config.construct import convert
    from samplerbench.app.job.console import print_carried, print_designs
    from samplerbench.bench.designing import DesignedGrid, carried, designed, require_carried
    from samplerbench.bench.exported_grids import as_member, exported

    strength = None if eta is None else convert(eta, float, "eta")
    sweep, cache = _sweep(Path(runs[0]) if runs else None, values)
    recipe = sweep.grid
    assert isinstance(recipe, DesignedGrid)
    other_laws = {name: make_member("dataset", name, {}) for name in laws}
    require_carried(sweep, other_laws, strength)
    if suffix == ".yaml":
        count = sum(len(sweep.steps_of(sampler)) for _, sampler in sweep.samplers)
        allowed = f"a .json file: a .yaml file has one design, and there are {count}"
        require(count == 1, "out", out, allowed)
    _, designs = designed(sweep, cache)
    print_designs(designs, console())
    elsewhere = carried(sweep, recipe, designs, other_laws, strength)
    print_carried(elsewhere, console())
    if out is None:
        return
    if suffix not in (".json", ".yaml"):
        from samplerbench.figures.common import score_title
        from samplerbench.figures.design_gain import design_gain  # slow: imports matplotlib
        from samplerbench.figures.style import save

        places = [one for one in elsewhere if one.to in other_laws]
        scores = [one for one in elsewhere if one.to in sweep.denoisers]
        places += [replace(one, to=score_title(one.to)) for one in scores]
        of_design = f"{sweep.labels.dataset}, {score_title(designs[0].denoiser)}"
        made_for = f"where it was designed: {of_design}"
        save(design_gain(designs, places, made_for), Path(out))
        return
    with whole_or_nothing(Path(out)) as path:
        records = [exported(design, sweep.schedule) for design in designs]
        text = json.dumps(records, indent=1, ensure_ascii=False)
        path.write_text(as_member(designs[0]) if suffix == ".yaml" else text, encoding="utf-8")


def _sweep(run: Path | None, words: Mapping[str, str]) -> Any:
    """The sweep with the recipe, and the cache of the designs."""
    from samplerbench.app.config.compose import compose_config
    from samplerbench.app.folder.runs import open_run
    from samplerbench.app.job.basis import chosen_cache, make_basis
    from samplerbench.app.job.build import assemble
    from samplerbench.app.job.rebuild import rebuild
    from samplerbench.bench.designing import require_designs, require_each_designed

    listed = [f"{key}={value}" for key, value in words.items() if key != "grid"]
    defaults = {"metric": "moments", "denoiser": "oracle", "grid": "designed"}
    listed += [f"{key}={value}" for key, value in defaults.items() if key not in words]
    if "sampler" not in words and not any(key.startswith("sampler.") for key in words):
        listed += ["sampler=[ddim,heun,dpm_solver_pp,unipc]", "sampler.ddim.eta=0"]
    if "nfe" not in words and "steps" not in words:
        listed.append("nfe=[6,10,16]")
    config, chosen = compose_config(listed)
    cache = chosen_cache(config)
    if run is None:
        base = make_basis(config, chosen)
        sweep = assemble(base, [str(config.denoiser)])[0]
    else:
        stored = rebuild(open_run(run), device=str(config.device)).sweep
        base = make_basis(config, chosen, stored.dataset, stored.schedule)
        ours = assemble(base, [])[0]
        given = {name: getattr(ours, name) for name in ("samplers", "steps", "nfe", "grid")}
        sweep = replace(stored, **given, own_grids=())
        for key, value in (("starts", "start"), ("final", "final"), ("seed", "seed")):
            if any(word.partition(".")[0] == value for word in words):
                sweep = replace(sweep, **{key: getattr(ours, key)})
    require_each_designed(sweep)
    require_designs(sweep)
    return sweep, cache
