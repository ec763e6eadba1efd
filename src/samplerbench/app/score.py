"""`samplerbench score FILE…`: the distance of anybody's samples to the data, with its floor.

    samplerbench score samples.npy dataset=grid_mixture
    samplerbench score a.npy b.npy reference=data.npy metric=sliced

Files hold one sample a row (.npy or .csv), from any tool in any language. The other words are those
of a job, or the same as `--dataset grid_mixture`: `dataset` and `metric` with their settings,
`n_reference`, and `seed`, which decides all that is random. `reference` is a file of data in place
of a data set, and of `n_reference`; its floor comes from the rows of both, relabelled at random.

The *floor* is the same distance for as many fresh draws of the law: what perfect samples show.
Samples between the smallest and the largest of 39 such distances cannot be told from the data at
this number; perfect samples are above, and below, with a chance of 2.5 %. The interval of a
distance says what other files of as many samples would show; see `bench.jackknife`.
"""

from __future__ import annotations

from pathlib import Path

from samplerbench.app.startup import importing
from samplerbench.app.words import read_words
from samplerbench.errors import require

#: Those of a job's words that are used here, and those of them with settings.
USED = ("dataset", "metric", "n_reference", "seed")
GROUPS = ("dataset", "metric")


def main(words: list[str]) -> None:
    """Print a table, the nearest file first.

    Raises:
        InvalidSetting: a file cannot be read, or a word is none that is used.
    """
    keys = ("reference", *USED)
    files, values = read_words("score", words, keys, groups=GROUPS, place="file")
    require(len(files) > 0, "score", "no file", "one or more .npy or .csv files of samples")
    reference = values.pop("reference", None)
    for name in [*files, *([] if reference is None else [reference])]:
        require(Path(name).expanduser().is_file(), "path", name, "a file that exists")
    for key in values if reference is not None else ():
        allowed = "left out beside a reference, whose points are all that samples are compared with"
        require(key.partition(".")[0] not in ("dataset", "n_reference"), key, values[key], allowed)
    with importing():  # it takes seconds: mistakes are told before
        from samplerbench.app.scoring import rank

    rank(files, reference, values)
