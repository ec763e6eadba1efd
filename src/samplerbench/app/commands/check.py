"""`samplerbench check [[kind=]name…]`: measure whether members keep the contract of their kind.

A kind is dataset, schedule, grid, network, target, level_law, weighting, objective, sampler, start
or metric; a name without a kind is a sampler. A name is a member of conf/KIND/, checked with its
settings there, or a class of any package that can be imported, also from the current folder:
`samplerbench check heun my_package.MySampler dataset=my_rings`. Without a name all samplers are
checked. If you name a class, its code runs: name only classes that you trust.

The output has one line for each promise, with its meaning: see `verify.contract`. A sampler has one
line with

- *order*: measured on a Gaussian and on a mixture, on three paths; see `verify.orders`. On a
  Gaussian the order may be higher: some methods are better on its linear field.
- *error*: on the mixture, divided by the error of a reference method of the same order, on smooth
  and on rough levels; see `verify.orders`.
- *law*: the error of the law of its samples, as a share of the width of the right law, at few and
  at many steps; see `verify.laws`.
- *contract*: promises that make its results comparable; see `verify.sampler_contract`.

A sampler of another package declares no order. Its errors from 5 to 1 000 steps and its faults are
printed; see `verify.peer_curves`. It runs at every N up to 64 and some above, or with `every=true`
at every N up to 1 000, which takes some minutes.

Settings may follow the name, as in a job:
`samplerbench check diffusers sampler.diffusers.scheduler=EulerDiscreteScheduler`, or
`samplerbench check dataset=gaussian_mixture 'dataset.means=[[0,0],[3,1]]'`.

Each fault is one line on standard error, and the exit status is 1.
"""

from __future__ import annotations

from samplerbench.app.config.folders import ADDING, groups, member_files, unknown_member
from samplerbench.errors import InvalidSetting, require, similar


def main(words: list[str]) -> None:
    """Check and print."""
    chosen = []
    every = "every=true" in words
    words = [word for word in words if word not in ("every=true", "every=false")]
    settings = [word for word in words if "=" in word and _kind_of_setting(word) in groups()]
    for word in [word for word in words if word not in settings] or member_files("sampler"):
        kind, equals, name = word.rpartition("=")
        kind = kind if equals else "sampler"
        allowed = f"kind=name, and a kind one of {', '.join(groups())}{similar(kind, groups())}"
        require(kind in groups(), "check", word, allowed)
        names = list(member_files(kind))
        if name not in names and "." not in name:
            elsewhere = [f"{other}={name}" for other in groups() if name in member_files(other)]
            allowed = " or ".join(elsewhere)
            if not elsewhere:
                named = unknown_member(kind, name, ADDING).allowed
                allowed = f"a class of that kind, package.Class, or {named}"
            raise InvalidSetting(kind if equals else "check", name, allowed)
        chosen.append((kind, name))
    kinds = {kind for kind, _ in chosen}
    for word in settings:
        kind = _kind_of_setting(word)
        require(kind in kinds, "check", word, f"left out, or with {kind}=NAME")
    from samplerbench.app.commands.examine import examine  # slow: imports torch

    examine(chosen, settings, every=every)


def _kind_of_setting(word: str) -> str:
    """The kind of a setting: "dataset" for dataset.means=…, empty for dataset=gaussian_mixture."""
    kind, dot, _ = word.partition("=")[0].partition(".")
    return kind if dot else ""
