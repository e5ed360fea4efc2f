"""The ledger of methods, ``systems.csv``, and references printed from it.

One row per method: title, source of its form, and state of its implementation. ``status`` is one of

- ``works``: ``entry_point`` implements the row, and ``test`` fails when the row's setting is changed;
- ``partial``: the function exists, the trainer or plugin of the method does not; ``note`` says what is missing;
- ``planned``: not implemented; ``entry_point`` and ``test`` are empty;
- ``out``: will not be implemented; ``note`` gives the reason.

``confidence`` of the form: ``checked`` (against released code or the paper, named in ``source``), ``second-hand`` (a
port, review or note, named in ``source``), ``known``, ``derived`` (by algebra or from the abstract), ``unsure``.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from diffalign.naming import nearest


class System(NamedTuple):
    """One row of the ledger; every field is a string, empty where unknown."""

    id: str
    title: str
    arxiv: str
    source: str
    confidence: str
    entry_point: str
    test: str
    status: str
    note: str


@cache
def systems() -> dict[str, System]:
    """Return the ledger by id, in the order of the file.

    Raises:
        ValueError: the columns are not those of :class:`System`, or an id occurs twice.
    """
    with Path(__file__).with_name("systems.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        if tuple(reader.fieldnames or ()) != System._fields:
            raise ValueError(f"systems.csv must have the columns {System._fields}, got {reader.fieldnames}")
        rows = [System(**row) for row in reader]
    ledger = {row.id: row for row in rows}
    if len(ledger) != len(rows):
        raise ValueError("systems.csv has an id twice")
    return ledger


def _bibtex(row: System) -> str:
    """One BibTeX entry, without authors; the year is that of the arXiv number."""
    title = row.title
    for special in "&%$#_":
        title = title.replace(special, "\\" + special)
    fields = [f"  title = {{{{{title}}}}}"]
    if row.arxiv:
        fields += [f"  eprint = {{{row.arxiv}}}", "  archivePrefix = {arXiv}", f"  year = {{20{row.arxiv[:2]}}}"]
        fields += [f"  note = {{arXiv:{row.arxiv}}}"]
    return f"@misc{{{row.id},\n" + ",\n".join(fields) + "\n}"


def cite(*ids: str) -> None:
    """Print BibTeX entries, without authors, for methods of the ledger: ``cite("ddpo", "flow-grpo")``.

    See :func:`bibtex`.
    """
    print(bibtex(*ids))


def bibtex(*ids: str) -> str:
    """Return BibTeX entries for methods of the ledger.

    Authors are missing, since the ledger does not record them: add them from the paper's arXiv page.

    Args:
        ids: ledger ids, ``bibtex("ddpo", "flow-grpo")``.

    Returns:
        The entries in the given order, separated by blank lines.

    Raises:
        ValueError: an id is not in the ledger; the message names the nearest ones.
    """
    ledger = systems()
    for unknown in (i for i in ids if i not in ledger):
        raise ValueError(f"no system {unknown!r} in the ledger{nearest(unknown, ledger, count=3)}")
    return "\n\n".join(_bibtex(ledger[i]) for i in ids)
