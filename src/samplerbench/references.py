"""From docstrings to BibTeX: what a text refers to, and the entries of references.bib.

A docstring names its sources for people: authors, title, venue, arXiv number. An entry is mentioned
where its arXiv number, its doi or its whole title stands in the text; titles are compared by their
letters and digits only, so that case, dashes and accents do not matter. There is no table from
members to entries: a member refers to what its own docstring mentions. Where that mentions nothing,
the module's speaks for it, but for our flat modules, which hold several members each.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pybtex.database import BibliographyData, Entry, Person, parse_file

ARXIV = r"arXiv[: ](\d{4}\.\d{4,5})"


@cache
def bibliography() -> BibliographyData:
    """All entries, by key."""
    path = Path(__file__).with_name("references.bib")
    return parse_file(str(path), bib_format="bibtex", encoding="utf-8")


def mentioned(text: str) -> list[str]:
    """The keys of the entries that a text mentions, in the order in which it does."""
    plain, letters = " ".join(text.split()), _letters(text)
    found = {}
    for key in _longest_title_first():
        entry, title = bibliography().entries[key], _title(key)
        # where it stands, as a share of the text
        shares = [letters.index(title) / len(letters)] if title in letters else []
        for name, words in (("eprint", "arXiv {}"), ("doi", "{}")):
            number = entry.fields.get(name)
            if number and words.format(number) in plain:
                shares.append(plain.index(words.format(number)) / len(plain))
        if shares:
            found[key] = min(shares)
        # a title can be a part of another one
        letters = letters.replace(title, " " * len(title))
    return sorted(found, key=lambda key: found[key])


def references(target: str) -> list[str]:
    """The keys of what a class or function refers to.

    Args:
        target: its full name, "samplerbench.samplers.heun.Heun"; its file is read and not run.
    """
    return mentioned(_document(target))


def unknown(target: str) -> list[str]:
    """The arXiv numbers that a docstring mentions and that have no entry here."""
    known = {entry.fields.get("eprint") for entry in bibliography().entries.values()}
    numbers = re.findall(ARXIV, " ".join(_document(target).split()))
    return [number for number in dict.fromkeys(numbers) if number not in known]


def bibtex(keys: Sequence[str]) -> str:
    """The entries as BibTeX, in the order of their keys."""
    entries = {key: bibliography().entries[key] for key in sorted(set(keys))}
    # in TeX's own letters, which every encoding has and every BibTeX reads
    text: str = BibliographyData(entries).to_string("bibtex", encoding="ascii")
    return text


def short(key: str) -> str:
    """An entry in a few words: its arXiv number, or first author and year."""
    entry: Entry = bibliography().entries[key]
    if "eprint" in entry.fields:
        return f"arXiv {entry.fields['eprint']}"
    people = entry.persons["author"]
    authors = [" ".join([*person.prelast_names, *person.last_names]) for person in people]
    names = " and ".join(authors) if len(authors) < 3 else f"{authors[0]} et al."
    return f"{names} {entry.fields['year']}"


def cited(key: str) -> str:
    """An entry as a list of references has it: authors, title, where, year, number."""
    entry: Entry = bibliography().entries[key]
    authors = [_initials(person) for person in entry.persons["author"]]
    fields = entry.fields
    where = next(
        (fields[name] for name in ("journal", "booktitle", "publisher") if name in fields), ""
    )
    parts = [", ".join(authors), _plain(fields["title"]), " ".join([where, fields["year"]]).strip()]
    numbers = {"eprint": "arXiv {}", "doi": "doi {}"}
    parts += [words.format(fields[name]) for name, words in numbers.items() if name in fields]
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


def _document(target: str) -> str:
    """The docstring that speaks for a class or function."""
    module, _, name = target.rpartition(".")
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of the package that it is said to be in
        return ""
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    own = next((ast.get_docstring(node) or "" for node in found if node.name == name), "")
    flat = re.fullmatch(r"samplerbench\.core\.\w+", module)
    says = flat or mentioned(own) or re.search(ARXIV, own)
    return own if says else ast.get_docstring(tree) or ""


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in plain if character.isalnum())
