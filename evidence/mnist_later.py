"""LeNet on MNIST, trained as long as the published runs, by the recipe `mnist-later`: hours, so rows are kept.

`make evidence PART=mnist_later` shows every row that is finished and runs none but those that `ROWS` names (see
`rows.py`).
"""

from rows import run_asked_rows, speed, tables, unfinished
from workplace import WORK

from smoothcert.recipes.plan import plan
from smoothcert.recipes.recipe import read_recipe
from smoothcert.store.provenance import machine_line

OUT = WORK / "mnist-later"


def main() -> str:
    run_asked_rows(OUT, "mnist-later")
    planned = plan(read_recipe("mnist-later"), "cpu")
    return "\n\n".join([
        "# MNIST, LeNet, trained as long as the published runs", f"{machine_line()}.", *speed([planned], OUT),
        *tables(planned, OUT), *unfinished(planned, OUT)]) + "\n"
