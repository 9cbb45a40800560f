"""TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoothcert.errors import FileError
from smoothcert.loggers.protocol import import_library


class TensorBoard:
    """TensorBoard's event files in a folder, for `tensorboard --logdir`; a resumed run adds to them."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).expanduser()
        import_library("tensorboard")
        if self._folder.exists() and not self._folder.is_dir():
            raise FileError(f"{self._folder} is a file: tensorboard:DIR needs a folder")
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:  # the folder comes with the first figures
            from torch.utils.tensorboard import SummaryWriter  # takes a second

            self._writer = SummaryWriter(str(self._folder))
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
