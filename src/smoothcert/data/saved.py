"""Data sets that Hugging Face's `datasets` saved on disk, read from their Arrow files without that library."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from smoothcert.data.base import ImageData
from smoothcert.data.parquet import join_rows
from smoothcert.data.reading import Reading
from smoothcert.data.splits import split_names
from smoothcert.data.tables import choose_columns, table_data
from smoothcert.errors import DataError, FileError, InputError
from smoothcert.io.files import read_json
from smoothcert.limits import UNPACKED_BYTES, open_bounded, path_inside

STATE = "state.json"
DICTIONARY = "dataset_dict.json"


def load_saved(path: Path, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    """Return the inputs of a folder that `save_to_disk` wrote, of a Dataset or of a DatasetDict.

    Raises FileError if it is none or is corrupt, InputError for a split that it lacks, DataError for content that
    cannot be used.
    """
    folder = path
    if (path / DICTIONARY).is_file():
        splits = _field(path / DICTIONARY, "splits", str)
        found = next((name for name in split_names(split) if name in splits), None)
        if found is None:
            raise InputError(f"{path} has no split {split!r}; the splits found: {', '.join(splits)}")
        folder = path_inside(path, found)
    if not (folder / STATE).is_file():
        raise FileError(f"{folder} has no {STATE}: datasets:PATH takes a folder that save_to_disk of Hugging Face's "
                        f"datasets wrote")
    files = [path_inside(folder, str(one.get("filename"))) for one in _field(folder / STATE, "_data_files", dict)]
    if not files:
        raise DataError(f"{folder} holds no rows")
    rows = join_rows([_read(file, reading) for file in files], files)
    data = table_data(rows, f"datasets:{path.resolve().name}", split, reading, num_classes)
    return replace(data, divided=folder != path)


def _read(file: Path, reading: Reading) -> pa.Table:
    """Return the columns that are wanted of one Arrow file."""
    try:
        with open_bounded(file, UNPACKED_BYTES) as stored, ipc.open_stream(stored) as stream:
            wanted = choose_columns(stream.schema, str(file), reading).wanted
            table = stream.read_all().select([name for name in stream.schema.names if name in wanted])
            table.validate(full=True)  # what a damaged file claims of its buffers is believed otherwise
            return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(f"{file} cannot be read as a file of Arrow: {error}") from None


def _field(file: Path, name: str, kind: type) -> list[Any]:
    """Return a list in a JSON file. Raises FileError where it is none."""
    content = read_json(file)
    listed = content.get(name) if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, kind) for one in listed):
        raise FileError(f"{file} is corrupt: it has no list {name}")
    return listed
