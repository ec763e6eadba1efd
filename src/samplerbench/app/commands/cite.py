"""`samplerbench cite DIR…`: the BibTeX entries of the members that runs used.

    samplerbench cite multirun/2026-11-22_01-28-46_e52fe8e85d76c76c > references.bib

The output has a comment for each member with its references, then the entry of samplerbench, from
CITATION.cff, and the entries of the references. The references of a member are in the comments of
its yaml file, or else in its docstring, see `report.references`. For a run with members of other
packages, add `trusted=their_package`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from pybtex.database import BibliographyData, Entry, Person

from samplerbench.app.commands.words import read_words, require_folder
from samplerbench.app.config.construct import first_comment, trusted
from samplerbench.app.config.folders import member_files
from samplerbench.app.folder.runs import COMPLETE, StoredRun, find_runs, open_run
from samplerbench.errors import InvalidSetting, kind_and_line
from samplerbench.report.references import bibtex, mentioned, references, without_entry

#: Groups of which a run uses one member, and groups of which it uses several, by name.
ONE, SEVERAL = ("dataset", "schedule", "grid"), ("start", "sampler", "metric", "picture")
#: Groups of a training; an objective uses only some of them.
TRAINING = ("network", "objective", "target", "level_law", "weighting")


@dataclass(frozen=True)
class Use:
    """A member that a run used, and its references."""

    group: str  # "sampler"
    name: str  # the member's name in the group
    keys: tuple[str, ...]  # the keys of its entries in references.bib
    numbers: tuple[str, ...] = ()  # arXiv numbers that have no entry


def main(words: list[str]) -> None:
    """Print a comment for each member, and the entries."""
    folders, _ = read_words("cite", words, [])
    require_folder("cite", folders)
    runs = [open_run(path) for folder in folders for path in find_runs(Path(folder))]
    uses = dict.fromkeys(use for run in runs for use in _uses(run))
    for use in sorted(uses, key=lambda use: (use.group, use.name)):
        sources = ", ".join([*use.keys, *(f"arXiv {n}, no entry here" for n in use.numbers)])
        print(f"% {use.group} {use.name}: {sources or '–'}")
    print()
    # without the hash; a run that was killed at its start has no version
    versions = {str(run.versions.get("samplerbench", "")).partition(" ")[0] for run in runs}
    print(own_entry(sorted(versions)[-1]))
    print(bibtex([key for use in uses for key in use.keys]), end="")


def _uses(run: StoredRun) -> list[Use]:
    """The members that a run used; an error if its config is not that of a run."""
    try:
        return list(members_used(run))
    except InvalidSetting:
        raise
    except Exception as error:  # the file may have any content
        allowed = f"{COMPLETE} ({kind_and_line(error)})"
        raise InvalidSetting("run", run.directory, allowed) from error


def members_used(run: StoredRun) -> Iterator[Use]:
    """The members that a run used, from its config."""
    from samplerbench.app.job.training import training_keys  # slow: imports torch

    config = run.config
    named = config.denoiser
    denoisers = [named] if isinstance(named, str) else list(named or [])
    groups = [group for group in ONE if config.get(group) is not None]  # dataset may be null
    if "learned" in denoisers:
        wanted = training_keys(config)
        groups += [group for group in TRAINING if group in wanted]
    for group in groups:
        yield _use(group, str(run.choices.get(group)), config[group])
    for group in SEVERAL:
        for name, node in (config.get(group) or {}).items():
            yield _use(group, str(name), node)
    recipe = config.get("trainer") or {} if "learned" in denoisers else {}
    parts = {
        # the config of an earlier run does not have this key
        "targets": ((recipe.get("data_per_target") or 1) > 1, "objectives.posterior"),
        "empirical": ("empirical" in denoisers, "datasets.empirical"),
        "pretrained": ("pretrained" in denoisers, "training.pretrained"),
        "budget": (config.get("budget") is not None, "core.coupling"),
        "chains": (bool(config.get("chains")), "bench.chains"),
    }
    for name, (is_used, module) in parts.items():
        if is_used:
            document = import_module(f"samplerbench.{module}").__doc__ or ""
            yield Use("part", name, tuple(mentioned(document)))


def own_entry(version: str) -> str:
    """The entry of samplerbench, from CITATION.cff."""
    citation = _citation()
    names = [
        a["name"] if "name" in a else f"{a['family-names']}, {a['given-names']}"
        for a in citation["authors"]
    ]
    authors = [Person(last=f"{{{n}}}") if "," not in n else Person(n) for n in names]
    fields = {"title": f"{{{citation['title']}}}", "version": version}
    fields |= {"year": str(citation["date-released"])[:4]} if "date-released" in citation else {}
    fields |= {key: str(citation[key]) for key in ("url", "doi") if key in citation}
    entry = Entry("software", fields=fields, persons={"author": authors})
    text: str = BibliographyData({"samplerbench": entry}).to_string("bibtex", encoding="ascii")
    return text


def _use(group: str, name: str, node: DictConfig) -> Use:
    target = str(node.get("_target_"))
    trusted(target, f"{group}.{name}" if group in SEVERAL else group)
    path = member_files(group).get(name)
    keys = (mentioned(first_comment(path)) if path else []) or references(target)
    return Use(group, name, tuple(keys), tuple(without_entry(target)))


@cache
def _citation() -> dict[str, Any]:
    package = Path(__file__).resolve().parents[2]
    installed = package / "CITATION.cff"
    path = installed if installed.is_file() else package.parents[1] / "CITATION.cff"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
