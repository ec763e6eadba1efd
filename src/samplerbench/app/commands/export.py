"""`samplerbench export RUN out=FOLDER`: the trained model of a run as a diffusers pipeline.

    samplerbench export RUN out=my_digits

FOLDER is new and gets its name when it is whole: the U-Net with its weights as safetensors, and a
scheduler with the levels of the run's path. `DDIMPipeline.from_pretrained(FOLDER)` loads it, and so
does `denoiser=pretrained model=FOLDER`. `training.exported` says what a pipeline can hold.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from samplerbench.app.commands.words import read_words
from samplerbench.errors import InvalidSetting, require
from samplerbench.files import temporary_name


def main(words: list[str]) -> None:
    """Write the folder, and say what it is.

    Raises:
        InvalidSetting: before anything is written, if it cannot be done.
    """
    directory, out = read(words)
    # what the words alone can show is checked; from here on it takes seconds
    from samplerbench.app.folder.runs import open_run
    from samplerbench.app.job.rebuild import rebuild
    from samplerbench.core.models import Learned
    from samplerbench.training.exported import pipeline

    training = rebuild(open_run(directory), device="cpu").training
    if training is None or not isinstance(training.objective.model, Learned):
        raise InvalidSetting("run", directory, "one that trained a denoiser")
    made = pipeline(training.objective.model)
    hidden = temporary_name(out)
    try:
        made.save_pretrained(hidden, safe_serialization=True)
        require(not os.path.lexists(out), "out", out, "a new folder; it was made meanwhile")
        hidden.rename(out)
    except OSError as error:
        allowed = f"a folder that can be written ({error.strerror})"
        raise InvalidSetting("out", out, allowed) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    weights = sum(values.numel() for values in made.unet.parameters())
    kind = made.scheduler.config.prediction_type
    print(f"exported: {out}, {weights:,} weights, {kind}, images of our ddim on grid=ddpm_trailing")
    print(f"there:    DDIMPipeline.from_pretrained({str(out)!r})")
    print(f"here:     denoiser=pretrained model={out} grid=ddpm_trailing")


def read(words: list[str]) -> tuple[Path, Path]:
    """The run's folder and the new one.

    Raises:
        InvalidSetting: naming the word and what is allowed.
    """
    folders, values = read_words("export", words, ["out"])
    require(len(folders) == 1, "export", " ".join(folders) or "no folder", "the folder of one run")
    require("out" in values, "out", "", "given, as in out=my_model")
    out = Path(values["out"])
    writable = out.parent.is_dir() and os.access(out.parent, os.W_OK)
    require(writable, "out", out, "in a folder that is there and can be written to")
    require(not os.path.lexists(out), "out", out, "a new folder; what is there is kept")
    return Path(folders[0]), out
