"""Train score models, run samplers on them, and measure how good each sampler is, and why.

Scripts and notebooks use `load`, `train`, `sweep`, `budget`, `recommend`, `sample`, `score`,
`summary`, `plot`, `levels`, `design` and `check`, and get members of the config groups by name. All
of these are in `samplerbench.library`, imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from samplerbench.version import __version__ as __version__

if TYPE_CHECKING:
    from samplerbench.library import (
        budget,
        check,
        dataset,
        design,
        grid,
        levels,
        load,
        metric,
        plot,
        recommend,
        sample,
        sampler,
        schedule,
        score,
        start,
        summary,
        sweep,
        train,
    )

__all__ = [
    "budget",
    "check",
    "dataset",
    "design",
    "grid",
    "levels",
    "load",
    "metric",
    "plot",
    "recommend",
    "sample",
    "sampler",
    "schedule",
    "score",
    "start",
    "summary",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from samplerbench import library

    return getattr(library, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
