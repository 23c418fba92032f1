"""Laws of data formats, on the example that each row carries."""

from __future__ import annotations

from harness.data.formats.row import Format, Graded, Pair, Ranked, value_fits
from harness.data.raw_rows import RowError
from harness.laws import hold


def states_itself(row: Format) -> None:
    """Name, description, needed columns and an example are stated."""
    hold(bool(row.name and row.doc and row.needs and row.example), "name, doc, needs and example must not be empty")


def fits_its_example(row: Format) -> None:
    """Every row of the example has the needed columns, holding what they should."""
    for example in row.example:
        for names, kinds in row.needs.items():
            held = [name for name in names.split("|") if value_fits(example.get(name), kinds)]
            hold(bool(held), f"the example has no {names} that is {kinds}")


def reads_its_example(row: Format) -> None:
    """Every row of the example is read as a pair, ranked answers or a graded answer."""
    for example in row.example:
        reading = row.read(example)
        hold(isinstance(reading, Pair | Ranked | Graded), f"read returns {type(reading).__name__}")


def names_what_a_row_lacks(row: Format) -> None:
    """A row without a needed column raises RowError."""
    names = next(iter(row.needs)).split("|")
    lacking = {name: value for name, value in row.example[0].items() if name not in names}
    try:
        row.read(lacking)
    except RowError:
        return
    hold(False, f"reads a row without {' or '.join(names)}; expected RowError")


LAWS = (states_itself, fits_its_example, reads_its_example, names_what_a_row_lacks)
