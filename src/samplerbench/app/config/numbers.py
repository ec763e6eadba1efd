"""The config's whole numbers: none so large that it would only fill the memory or the time.

They are looked at before torch is imported, so that a mistake in them is told at once.
"""

from __future__ import annotations

import os

from omegaconf import DictConfig, ListConfig

from samplerbench.app.config.construct import convert
from samplerbench.errors import require

#: Those that every job has, and those of them that may be none.
COUNTS = ("threads", "n_samples", "n_reference", "repetitions")
FROM_ZERO = ("seed", "data_seed", "train_seed", "metric_seed", "floor_repetitions", "chains")
#: What no job needs, and what would take the memory before it takes the time.
MOST = {"steps": 10**6, "nfe": 10**6, "converged_steps": 10**6, "chains": 10**6}
MOST |= {"repetitions": 10**6, "floor_repetitions": 10**6, "threads": 1024, "workers": 1024}
#: Numbers of points, each with at least a few copies of its coordinates: so many bytes.
ROWS, ROW = ("n_samples", "n_reference", "n_train", "n_validation", "block"), 64


def check_numbers(config: DictConfig) -> None:
    """Ask of each number that every job has whether it can be one.

    Raises:
        InvalidSetting: naming the first that cannot.
    """
    for key in (*COUNTS, *FROM_ZERO):
        count(config, key)
    if config.block is not None:
        count(config, "block")
    for key in ("steps", "nfe"):
        for number in numbers(config, key):
            require(number >= 1, key, number, "at least 1")


def count(config: DictConfig, key: str) -> int:
    """A whole number from the config."""
    number: int = convert(config[key], int, key)
    least = 0 if key in FROM_ZERO else 1
    require(number >= least, key, number, f"at least {least}")
    require(number < 2**40, key, number, "below 2^40")
    if key in ROWS:
        most = memory() // ROW
        allowed = f"at most {most:,}: the memory of this machine holds no more points"
        require(number <= most, key, number, allowed)
    elif key in MOST:
        require(number <= MOST[key], key, number, f"at most {MOST[key]:,}")
    return number


def numbers(config: DictConfig, key: str) -> list[int]:
    """A whole number or a list of them, none twice; empty for null."""
    value = config[key]
    listed = value if isinstance(value, ListConfig | list) else [] if value is None else [value]
    found: list[int] = [convert(number, int, key) for number in listed]
    require(len(set(found)) == len(found), key, value, "whole numbers, none twice")
    for number in found:
        require(number <= MOST[key], key, number, f"at most {MOST[key]:,}")
    return found


def memory() -> int:
    """Bytes of this machine's memory; 2^50, more than any has, where it does not say."""
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 2**50
