"""References: from docstrings to the entries of references.bib, BibTeX and lists of papers.

A docstring names its sources for readers: authors, title, venue, arXiv number. It mentions an entry
if it contains the entry's arXiv number, its doi or its whole title. Only the letters and digits of
titles are compared, so case, dashes and accents do not matter. A member cites the entries that its
docstring mentions, so no table of citations is needed. If the docstring mentions none, that of the
module is used, except in `core`, whose modules have several members each.

Files are read, never executed.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pybtex.database import BibliographyData, Entry, Person, parse_file

ARXIV = r"arXiv[: ](\d{4}\.\d{4,5})"
#: Groups of the config whose members' papers are on the page of a report.
GROUPS = ("sampler", "objective", "metric", "schedule", "grid")
# finding a module imports its parent packages, so only modules of this package are looked up
_OURS = re.compile(r"samplerbench(?:\.[a-z_0-9]+)+\.[A-Za-z_0-9]+")


@cache
def bibliography() -> BibliographyData:
    """All entries, by key."""
    path = Path(__file__).with_name("references.bib")
    return parse_file(str(path), bib_format="bibtex", encoding="utf-8")


def mentioned(text: str) -> list[str]:
    """The keys of the entries that a text mentions, in the order of the text."""
    plain, letters = " ".join(text.split()), _letters(text)
    positions = {}
    for key in _longest_title_first():
        entry, title = bibliography().entries[key], _title(key)
        # positions are shares of the length of the text
        shares = [letters.index(title) / len(letters)] if title in letters else []
        for name, pattern in (("eprint", "arXiv {}"), ("doi", "{}")):
            number = entry.fields.get(name)
            if number and pattern.format(number) in plain:
                shares.append(plain.index(pattern.format(number)) / len(plain))
        if shares:
            positions[key] = min(shares)
        # a title can be a part of another title
        letters = letters.replace(title, " " * len(title))
    return sorted(positions, key=lambda key: positions[key])


def references(target: str) -> list[str]:
    """The keys of the entries that a class or function, by its full name, refers to."""
    return mentioned(_document(target))


def without_entry(target: str) -> list[str]:
    """The arXiv numbers in a docstring that have no entry in references.bib."""
    numbers = re.findall(ARXIV, " ".join(_document(target).split()))
    with_entry = {entry.fields.get("eprint") for entry in bibliography().entries.values()}
    return [number for number in dict.fromkeys(numbers) if number not in with_entry]


@dataclass(frozen=True)
class Source:
    """The sources of a member of a group."""

    group: str
    name: str
    texts: tuple[str, ...]


def sources(configs: Sequence[Mapping[str, Any]]) -> list[Source]:
    """The sources of the members in some configs, without repetitions, in the order of `GROUPS`."""
    texts = {
        (group, name): tuple(map(cited, references(target)))
        for group in GROUPS
        for config in configs
        for name, target in _targets(config.get(group), group)
        if _OURS.fullmatch(target)
    }
    return [Source(group, name, papers) for (group, name), papers in texts.items() if papers]


def _targets(node: Any, name: str) -> Iterator[tuple[str, str]]:
    """The name and the `_target_` of each member in a node of the config."""
    if not isinstance(node, Mapping):
        return
    target = node.get("_target_")
    if isinstance(target, str):
        yield target.rpartition(".")[2] if name in GROUPS else name, target
        return
    for key, inner in node.items():
        yield from _targets(inner, str(key))


def bibtex(keys: Sequence[str]) -> str:
    """The entries as BibTeX, in the order of their keys."""
    entries = {key: bibliography().entries[key] for key in sorted(set(keys))}
    # accents as TeX commands, which every encoding can store and every BibTeX can read
    text: str = BibliographyData(entries).to_string("bibtex", encoding="ascii")
    return text


def short(key: str) -> str:
    """A short form of an entry: its arXiv number, or authors and year."""
    entry: Entry = bibliography().entries[key]
    if "eprint" in entry.fields:
        return f"arXiv {entry.fields['eprint']}"
    people = entry.persons["author"]
    authors = [" ".join([*person.prelast_names, *person.last_names]) for person in people]
    names = " and ".join(authors) if len(authors) < 3 else f"{authors[0]} et al."
    return f"{names} {entry.fields['year']}"


def cited(key: str) -> str:
    """An entry of a list of references: authors, title, venue, year, number."""
    entry: Entry = bibliography().entries[key]
    authors = [_initials(person) for person in entry.persons["author"]]
    fields = entry.fields
    venue = next(
        (fields[name] for name in ("journal", "booktitle", "publisher") if name in fields), ""
    )
    parts = [", ".join(authors), _plain(fields["title"]), " ".join([venue, fields["year"]]).strip()]
    numbers = {"eprint": "arXiv {}", "doi": "doi {}"}
    parts += [pattern.format(fields[name]) for name, pattern in numbers.items() if name in fields]
    return ", ".join(parts)


def _initials(person: Person) -> str:
    first = [f"{name[0]}." for name in [*person.first_names, *person.middle_names]]
    return " ".join([*first, *person.prelast_names, *person.last_names])


def _plain(text: str) -> str:
    """Text without TeX's braces, commands and dashes."""
    return re.sub(r"\\\w+|[{}$]", "", text).replace("--", "–")


@cache
def _longest_title_first() -> list[str]:
    return sorted(bibliography().entries, key=lambda key: -len(_title(key)))


@cache
def _title(key: str) -> str:
    return _letters(re.sub(r"\\\w+", "", bibliography().entries[key].fields["title"]))


def declared(target: str, name: str) -> Any:
    """A plain value that the class of one of our members declares, or None."""
    node, _ = _defined(target) if _OURS.fullmatch(target) else (None, None)
    values = {
        ast.unparse(line.target): line.value.value
        for line in (node.body if node else [])
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Constant)
    }
    return values.get(name)


def _document(target: str) -> str:
    """The docstring that names the sources of a class or function."""
    node, tree = _defined(target)
    if tree is None:
        return ""
    own = (ast.get_docstring(node) if node else None) or ""
    several_members = re.fullmatch(r"samplerbench\.core\.\w+", target.rpartition(".")[0])
    if several_members or mentioned(own) or re.search(ARXIV, own):
        return own
    return ast.get_docstring(tree) or ""


def _defined(target: str) -> tuple[ast.ClassDef | ast.FunctionDef | None, ast.Module | None]:
    """The definition of a class or function, and its module."""
    module, _, name = target.rpartition(".")
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # its package does not exist
        return None, None
    if spec is None or spec.origin is None:
        return None, None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    members = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return next((node for node in members if node.name == name), None), tree


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in plain if character.isalnum())
