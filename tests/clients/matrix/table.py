"""Cells, and how they are shown: a table for a person, JSON for a program."""

import json
from typing import NamedTuple


class Cell(NamedTuple):
    """`state`: pass, FAIL, n/a (the client lacks it), or - (not run: what it needs failed elsewhere)."""

    state: str
    detail: str = ""


class Table:
    """Rows by client, columns by case, in the order of first mention."""

    def __init__(self, title: str, columns: list):
        self.title, self.columns, self.rows = title, list(columns), {}

    def put(self, row: str, column: str, cell: Cell) -> None:
        self.rows.setdefault(row, {})[column] = cell

    def cells(self):
        for row, cells in self.rows.items():
            for column in self.columns:
                if column in cells:
                    yield row, column, cells[column]

    def failures(self) -> list:
        return [(row, column, cell) for row, column, cell in self.cells() if cell.state == "FAIL"]

    def text(self) -> str:
        names = [self.title] + [str(column) for column in self.columns]
        lines = [[row] + [cells[column].state if column in cells else "" for column in self.columns] for row, cells in self.rows.items()]
        widths = [max(len(line[index]) for line in [names] + lines) for index in range(len(names))]
        show = lambda line: "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        return "\n".join([show(names), "  ".join("-" * width for width in widths)] + [show(line) for line in lines])

    def notes(self) -> str:
        """Why cells are n/a, each reason once with its columns."""
        reasons = {}
        for row, column, cell in self.cells():
            if cell.state == "n/a":
                reasons.setdefault((row, cell.detail), []).append(column)
        return "\n".join(f"  n/a  {row}: {', '.join(columns)}: {reason}" for (row, reason), columns in reasons.items())

    def as_json(self) -> dict:
        return {row: {column: cell._asdict() for column, cell in cells.items()} for row, cells in self.rows.items()}


def dump_json(path: str, content: dict) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
