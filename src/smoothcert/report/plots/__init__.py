"""Pictures, with matplotlib: readable printed grey and by colour-blind people; the same bytes for the same input.

matplotlib loads on first use, so that the list of kinds (`kinds`) can be read quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothcert.report.plots.drawing import picture
    from smoothcert.report.plots.lines import plot_curves

__all__ = ["picture", "plot_curves"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'lines' if name == 'plot_curves' else 'drawing'}"), name)
