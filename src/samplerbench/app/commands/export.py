"""`samplerbench export RUN out=FOLDER`: write a run's trained model as a diffusers pipeline.

    samplerbench export RUN out=my_digits

FOLDER must be new. It is written completely or not at all, with the U-Net, its weights as
safetensors, and a scheduler with the levels of the run's path. Both
`DDIMPipeline.from_pretrained(FOLDER)` and `denoiser=pretrained model=FOLDER` load it.
`training.exported` lists the models that can be exported.

If the samplers of the run have their own levels (grid=designed, grids=each-best), the folder also
has levels.json, with σ/α, the words of a job, and lists for the schedulers of diffusers.
"""

from __future__ import annotations

import json
from pathlib import Path

from samplerbench.app.commands.output import new_path, whole_or_nothing
from samplerbench.app.commands.words import read_words, require_folder
from samplerbench.app.folder.runs import open_run
from samplerbench.errors import InvalidSetting, require

#: The file of the levels of single samplers.
LEVELS = "levels.json"


def main(words: list[str]) -> None:
    """Write the folder and print how to load it."""
    folders, values = read_words("export", words, ["out"])
    require_folder("export", folders, one=True)
    require("out" in values, "out", "", "given, as in out=my_model")
    directory, out = Path(folders[0]), new_path(Path(values["out"]), "folder")
    # slow: imports torch
    from samplerbench.app.job.rebuild import rebuild
    from samplerbench.bench.exported_grids import exported_own
    from samplerbench.core.models import Learned
    from samplerbench.training.exported import pipeline

    job = rebuild(open_run(directory), device="cpu")
    training = job.training
    if training is None or not isinstance(training.objective.model, Learned):
        raise InvalidSetting("run", directory, "one that trained a denoiser")
    exported = pipeline(training.objective.model)
    with whole_or_nothing(out) as hidden:
        exported.save_pretrained(hidden, safe_serialization=True)
        if job.sweep.own_grids:
            records = exported_own(job.sweep.own_grids, job.sweep.schedule)
            text = json.dumps(records, indent=1, ensure_ascii=False)
            (hidden / LEVELS).write_text(text, encoding="utf-8")
    weights = sum(values.numel() for values in exported.unet.parameters())
    kind = exported.scheduler.config.prediction_type
    print(f"exported: {out}, {weights:,} weights, {kind}, images of our ddim on grid=ddpm_trailing")
    print(f"there:    DDIMPipeline.from_pretrained({str(out)!r})")
    print(f"here:     denoiser=pretrained model={out} grid=ddpm_trailing")
    if job.sweep.own_grids:
        print(
            f"levels:   {out / LEVELS}, for {len(job.sweep.own_grids)} of the run's samplers and N"
        )
