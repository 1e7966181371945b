"""The table of jobs: a CSV or JSONL file, row by row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import AvatarError

DELIMITERS = ",;\t"  # spreadsheets write all three
TRUE, FALSE = {"yes", "true", "on", "1"}, {"no", "false", "off", "0"}
Values = Mapping[str, object]  # column -> text, number, truth value or list; empty cells are left out


@dataclass(frozen=True)
class Row:
    """One row that is to become jobs; `number` counts the lines of the file from 1. problem: why it cannot be read."""

    number: int
    values: Values
    problem: str | None = None


def read_table(path: Path) -> list[Row]:
    """The rows of a ``.csv`` file with a header, or of a ``.jsonl`` file with an object a line.

    Empty lines and lines that begin with # are left out. Raises AvatarError for a file that is missing, of another
    kind, not UTF-8, or without rows.
    """
    readers = {".csv": csv_rows, ".jsonl": jsonl_rows}
    if path.suffix.lower() not in readers:
        raise AvatarError(
            f"The table of jobs is '{path.name}', expected a name that ends in .csv or .jsonl; rename it."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise AvatarError(f"The table of jobs '{path}' cannot be read: {problem.strerror}; check the path.") from None
    except UnicodeDecodeError:
        raise AvatarError(f"The table of jobs '{path}' is not UTF-8; save it as CSV with UTF-8.") from None
    rows = readers[path.suffix.lower()](text)
    if not rows:
        raise AvatarError(
            f"The table of jobs '{path}' has no rows; write the names of the columns, such as portrait,voice, "
            "into its first line, and a portrait and a voice into each row."
        )
    return rows


def csv_rows(text: str) -> list[Row]:
    """Rows below a header; the delimiter is the one of , ; and tab that is most frequent in the header."""
    lines = io.StringIO(text)
    first = next((line for line in io.StringIO(text) if line.strip() and not line.lstrip().startswith("#")), "")
    delimiter = max(DELIMITERS, key=first.count)
    rows: list[Row] = []
    header: list[str] = []
    reader = csv.reader(lines, delimiter=delimiter)
    number = 0
    try:
        for record in reader:
            start, number = number + 1, reader.line_num
            cells = [cell.strip() for cell in record]
            if not any(cells) or cells[0].startswith("#"):
                continue
            if not header:
                header = cells
                if len(set(header)) < len(header):
                    raise AvatarError(f"The header '{first.strip()}' names a column twice; remove one.")
                continue
            problem = None
            if any(cells[len(header) :]):
                problem = f"it has {len(cells)} cells, the header {len(header)}; quote a cell that holds '{delimiter}'"
            rows.append(Row(start, {name: cell for name, cell in zip(header, cells, strict=False) if cell}, problem))
    except csv.Error as problem:
        rows.append(Row(number + 1, {}, f"it is not CSV ({problem}); the rows below it are not read"))
    return rows


def jsonl_rows(text: str) -> list[Row]:
    """A row for each line that holds a JSON object."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            values = json.loads(line)
        except ValueError as problem:
            rows.append(Row(number, {}, f"it is not JSON ({problem}); write one object a line"))
            continue
        if not isinstance(values, dict):
            rows.append(Row(number, {}, 'it is not a JSON object; write {"portrait": ..., "voice": ...}'))
            continue
        rows.append(Row(number, {name: value for name, value in values.items() if value not in (None, "")}))
    return rows


def truth(value: object, column: str) -> bool:
    """A cell as yes or no. Raises AvatarError for anything else."""
    word = str(value).strip().lower()
    if word not in TRUE | FALSE:
        raise AvatarError(f"{column} is '{value}', expected yes or no.")
    return word in TRUE
