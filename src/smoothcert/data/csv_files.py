"""Labelled inputs in files of comma-separated values: one input a line, and a line of names first."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from smoothcert.data.base import ImageData
from smoothcert.data.columns import is_string
from smoothcert.data.parquet import join_rows
from smoothcert.data.reading import Reading
from smoothcert.data.splits import find_split
from smoothcert.data.tables import table_data
from smoothcert.errors import DataError, FileError
from smoothcert.limits import CSV_BYTES, unpacked_bytes

_SHOWN = 5
_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(rb"(?:\xef\xbb\xbf)?sep=([,;\t])\r?\n")
"""A first line by which Excel is told the separator."""
_DECIMAL_COMMA = re.compile(rb"[;\n\"]-?\d+,\d+[;\r\n\"]")


def load_csv(path: Path, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    """Return the inputs of a CSV file, or of the files of `split` in a folder.

    Values are separated by commas, semicolons or tabs, whichever the first line has most of. Beside semicolons, numbers
    may be written with a decimal comma. A cell may hold a list in JSON.

    Raises FileError if nothing is there or a file is corrupt, InputError for a split that the folder lacks, DataError
    for content that cannot be used.
    """
    found = find_split(path, split, ".csv", ".csv.gz")
    rows = join_rows([_read(file) for file in found.files], found.files)
    data = table_data(rows, f"csv:{path.resolve().name}", split, reading, num_classes)
    return replace(data, divided=found.divided)


def _read(file: Path) -> pa.Table:
    """Return the table of a file, with lists where cells hold them. Raises FileError, DataError."""
    odd: list[str] = []

    def note(row: csv.InvalidRow) -> str:
        odd.append(f"line {row.number} has {row.actual_columns} values instead of {row.expected_columns}: "
                   f"{row.text!r:.80}")
        return "skip"

    content = unpacked_bytes(file, CSV_BYTES)
    try:
        content.decode("utf-8")
        content, separator, decimal = _dialect(content)
        table = csv.read_csv(  # in one block, because types are guessed from the first one alone
            pa.BufferReader(content), csv.ReadOptions(use_threads=False, block_size=len(content) + 1),
            csv.ParseOptions(delimiter=separator, invalid_row_handler=note, newlines_in_values=True),
            csv.ConvertOptions(strings_can_be_null=True, decimal_point=decimal))
        table = table.rename_columns([name.strip() for name in table.column_names])
    except (pa.ArrowException, ValueError) as error:
        raise FileError(f"{file} cannot be read as comma-separated values in UTF-8: {error}") from None
    if odd:
        more = f"\n  - and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise DataError(f"{file} has lines of another length than the first:\n"
                        + "\n".join(f"  - {one}" for one in odd[:_SHOWN]) + more)
    numbers = [name for name in table.column_names if _is_number(name)]
    if len(numbers) == table.num_columns or any("." in name for name in numbers):  # whole numbers may be names
        raise DataError(f"{file} begins with numbers, {', '.join(numbers)[:80]}, and should begin with a line that "
                        f"names its columns")
    for place, name in enumerate(table.column_names):
        texts = table.column(place)
        if is_string(texts.type) and str(next(iter(texts.drop_null()), "")).startswith("["):
            table = table.set_column(place, name, _read_lists(texts, f"{file}: the column {name}"))
    return table


def _dialect(content: bytes) -> tuple[bytes, str, str]:
    """Return a table without the line that tells Excel its separator, the separator, and the decimal point."""
    if told := _SEPARATOR_LINE.match(content):
        content, separator = content[told.end():], told[1].decode()
    else:
        names = re.sub(r'"[^"]*"', "", content.partition(b"\n")[0].decode())
        separator = max(_SEPARATORS, key=names.count)
    return content, separator, "," if separator == ";" and _DECIMAL_COMMA.search(content) else "."


def _read_lists(texts: pa.ChunkedArray, where: str) -> pa.Array:
    """Return lists that are written in JSON. Raises DataError for other texts."""
    lists = []
    for row, text in enumerate(texts.to_pylist()):
        try:
            lists.append(None if text is None else json.loads(text))
        except (ValueError, RecursionError):
            raise DataError(f"{where} holds lists, but {text!r:.60} in row {row}") from None
    try:
        return pa.array(lists)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{where} holds lists of something else than numbers: {error}") from None


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
