"""What was measured: one line a figure, a table for people and a file for machines."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Spread:
    """Several rounds of one measurement: the median stands for them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Args:
        section: what it belongs to.
        name: what was measured.
        value: the rounds.
        unit: such as `calls/s`, or `` of a ratio.
        goal: the number it is held to; None of a baseline.
        at_most: whether the goal is an upper limit.
        note: what else is worth knowing.
    """

    section: str
    name: str
    value: Spread
    unit: str = ""
    goal: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.goal is None:
            return None
        return self.value.median <= self.goal if self.at_most else self.value.median >= self.goal


@dataclass
class Report:
    """Collects figures and what broke."""

    facts: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, section: str, name: str, values: Sequence[float], unit: str = "", **more: Any) -> None:
        """Adds a figure from the values of its rounds."""
        self.figures.append(Figure(section, name, Spread.of(values), unit, **more))

    def show(self, console: Console) -> None:
        """Prints the table."""
        table = Table(title="Concord, measured beside its own baselines", title_justify="left")
        for heading in ("what", "median", "min … max", "unit", "goal", "met", "note"):
            table.add_column(heading, justify="right" if heading in ("median", "min … max", "goal") else "left", overflow="fold")
        section = ""
        sections = list(dict.fromkeys(figure.section for figure in self.figures))
        for figure in sorted(self.figures, key=lambda figure: sections.index(figure.section)):
            if figure.section != section:
                section = figure.section
                table.add_section()
                table.add_row(f"[bold]{section}[/]")
            sign = "≤" if figure.at_most else "≥"
            goal = "" if figure.goal is None else f"{sign} {shown(figure.goal)}"
            met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[figure.is_met]
            value = figure.value
            spread = "" if value.low == value.high else f"{shown(value.low)} … {shown(value.high)}"
            table.add_row(f"  {figure.name}", shown(value.median), spread, figure.unit, goal, met, figure.note)
        console.print(table)
        for line in self.broken:
            console.print(f"broke: {line}", style="red", markup=False)

    def write(self, path: Path) -> None:
        """Writes everything as JSON."""
        figures = [asdict(figure) | {"is_met": figure.is_met} for figure in self.figures]
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**self.facts, "figures": figures, "broken": self.broken}, indent=1, ensure_ascii=False))


def shown(number: float) -> str:
    """A number with about three digits that matter."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
