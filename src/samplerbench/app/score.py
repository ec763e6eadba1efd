"""`samplerbench score FILE…`: the distance of anybody's samples to the data, with its floor.

    samplerbench score samples.npy dataset=grid_mixture
    samplerbench score a.npy b.npy reference=data.npy metric=sliced

Files hold one sample a row (.npy or .csv), from any tool in any language. The other words are those
of a job, or the same as `--dataset grid_mixture`: `dataset`, `metric` with its settings,
`n_reference`, `seed`. `reference` is a file of data in place of a data set; its floor comes from
disjoint parts of it.

The *floor* is the same distance for as many fresh draws of the law: what perfect samples show.
Samples within 95 % of the floor's draws cannot be told from the data at this number. The interval
of a distance says what other files of as many samples would show; see `evaluation/jackknife`.
"""

from __future__ import annotations

from pathlib import Path

from samplerbench.app.startup import importing
from samplerbench.errors import InvalidSetting, require


def main(words: list[str]) -> None:
    """Print a table, the nearest file first.

    Raises:
        InvalidSetting: a file cannot be read, or a word is none of the config's.
    """
    words = without_dashes(words)
    files = [word for word in words if "=" not in word or Path(word).is_file()]
    words = [word for word in words if word not in files]
    require(len(files) > 0, "score", "no file", "one or more .npy or .csv files of samples")
    given = [word.partition("=")[2] for word in words if word.startswith("reference=")]
    for name in [*files, *given[-1:]]:
        require(Path(name).expanduser().is_file(), "path", name, "a file that exists")
    overrides = [word for word in words if not word.startswith("reference=")]
    known = [word for word in overrides if word.startswith("dataset=")]
    allowed = "left out beside a reference: samples are compared with the one or the other"
    require(not (known and given), "dataset", known and known[0].partition("=")[2], allowed)
    with importing():  # it takes seconds: mistakes are told before
        from samplerbench.app.scoring import rank

    rank(files, given[-1] if given else None, overrides)


def without_dashes(words: list[str]) -> list[str]:
    """The words with `--key value` and `--key=value` as `key=value`.

    Raises:
        InvalidSetting: such a key has no value.
    """
    plain, rest = [], iter(words)
    for word in rest:
        if not word.startswith("--"):
            plain.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            found = next(rest, None)
            if found is None:
                raise InvalidSetting("score", word, f"followed by its value, or {key}=…")
            value = found
        plain.append(f"{key}={value}")
    return plain
