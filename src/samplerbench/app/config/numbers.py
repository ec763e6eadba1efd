"""Check the integers of the config, with limits on memory and time.

This happens before torch is imported, so that an error is reported at once.
"""

from __future__ import annotations

import os

from omegaconf import DictConfig, ListConfig

from samplerbench.app.config.construct import convert
from samplerbench.errors import require

#: Integer keys of every job: keys whose least value is 1, and keys whose least value is 0.
COUNTS = ("threads", "n_samples", "n_reference", "repetitions")
FROM_ZERO = ("seed", "data_seed", "train_seed", "metric_seed", "floor_repetitions", "chains")
#: Upper limits; larger numbers would only fill the memory.
MOST = {"steps": 10**6, "nfe": 10**6, "converged_steps": 10**6, "chains": 10**6}
MOST |= {"repetitions": 10**6, "floor_repetitions": 10**6, "threads": 1024, "workers": 1024}
#: Keys that are numbers of points, and the smallest number of bytes per point.
ROWS, ROW = ("n_samples", "n_reference", "n_train", "n_validation", "block"), 64


def check_numbers(config: DictConfig) -> None:
    """Check each number that every job has."""
    for key in (*COUNTS, *FROM_ZERO):
        whole_number(config, key)
    if config.block is not None:
        whole_number(config, "block")
    for key in ("steps", "nfe"):
        for number in whole_numbers(config, key):
            require(number >= 1, key, number, "at least 1")


def whole_number(config: DictConfig, key: str) -> int:
    """A whole number from the config."""
    number: int = convert(config[key], int, key)
    least = 0 if key in FROM_ZERO else 1
    require(number >= least, key, number, f"at least {least}")
    require(number < 2**40, key, number, "below 2^40")
    if key in ROWS:
        most = memory() // ROW
        allowed = f"at most {most:,}: the memory of this machine cannot hold more points"
        require(number <= most, key, number, allowed)
    elif key in MOST:
        require(number <= MOST[key], key, number, f"at most {MOST[key]:,}")
    return number


def whole_numbers(config: DictConfig, key: str) -> list[int]:
    """An integer, or a list of different integers; empty for null."""
    value = config[key]
    listed = value if isinstance(value, ListConfig | list) else [] if value is None else [value]
    integers: list[int] = [convert(number, int, key) for number in listed]
    require(len(set(integers)) == len(integers), key, value, "whole numbers, none twice")
    for number in integers:
        require(number <= MOST[key], key, number, f"at most {MOST[key]:,}")
    return integers


def memory() -> int:
    """Bytes of this machine's memory; 2^50 if it cannot be read."""
    readable = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if readable else 2**50
