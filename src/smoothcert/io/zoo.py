"""The zoo: trained networks with their certificates, in `zoo/` of the repository; an installed package has none."""

import os
from pathlib import Path

from smoothcert.checks import check_known
from smoothcert.errors import FileError
from smoothcert.io.limits import inside

ZOO_DIR_VARIABLE = "SMOOTHCERT_ZOO_DIR"
CERTIFICATES = "certificates"
"""The folder, within an entry, of the store of its certificates."""

_PREFIX = "zoo:"
_CHECKOUT = Path(__file__).parents[3] / "zoo"


def local_path(named: str | Path) -> Path:
    """Return the path that is meant: `zoo:NAME` is the folder of an entry of the zoo, `zoo:NAME/FILE` a file or folder
    in it, and any other path itself.

    Raises:
        UnknownNameError: no such entry; the message lists the entries. FileError: there is no zoo here.
    """
    text = str(named)
    if not text.startswith(_PREFIX):
        return Path(named)
    name, _, rest = text.removeprefix(_PREFIX).partition("/")
    return inside(zoo_dir() / check_known("entry of the zoo", name, zoo_names()), rest)


def zoo_names() -> list[str]:
    """Return the names of the zoo's entries, sorted. Raises FileError where there is no zoo, or nothing is in it."""
    zoo = zoo_dir()
    names = sorted(card.parent.name for card in zoo.glob("*/model.json"))
    if not names:
        raise FileError(f"the zoo {zoo} has no entries: they are folders with a model.json")
    return names


def zoo_dir() -> Path:
    """Return the folder that the entries are in: SMOOTHCERT_ZOO_DIR, else that of this checkout. Raises FileError."""
    named = os.environ.get(ZOO_DIR_VARIABLE)
    zoo = Path(named).absolute() if named else _CHECKOUT
    if zoo.is_dir():
        return zoo
    if named:
        raise FileError(f"{ZOO_DIR_VARIABLE} is {named}, and there is no such folder: give the folder zoo of a "
                        f"checkout of smoothcert's repository")
    raise FileError(f"there is no zoo here: zoo:NAME is an entry of the folder zoo in smoothcert's repository, which "
                    f"an installed package lacks; take a checkout, and set {ZOO_DIR_VARIABLE} to its folder zoo")
