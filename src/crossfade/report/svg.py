"""A small SVG drawing: well-formed by construction, coloured by the page's style sheet."""

from __future__ import annotations

import math
from xml.etree import ElementTree


class Drawing:
    """Elements in user units; classes, not colours, so that light and dark mode both work."""

    def __init__(self, width: float, height: float, label: str, style: str) -> None:
        self.width = width
        self.height = height
        self.root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {_n(width)} {_n(height)}",
                "class": style,
                "role": "img",
                "aria-label": label,
            },
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A straight line."""
        self._add("line", style, x1=x1, y1=y1, x2=x2, y2=y2)

    def rect(self, x: float, y: float, width: float, height: float, style: str, radius: float = 0) -> None:
        """A rectangle; nothing if it has no extent."""
        if width > 0 and height > 0:
            self._add("rect", style, x=x, y=y, width=width, height=height, rx=radius)

    def circle(self, x: float, y: float, radius: float, style: str, tip: str = "") -> None:
        """A dot, with the text that a pointer resting on it shows."""
        element = self._add("circle", style, cx=x, cy=y, r=radius)
        if tip:
            ElementTree.SubElement(element, "title").text = tip

    def polygon(self, points: list[tuple[float, float]], style: str, tip: str = "") -> None:
        """A closed shape."""
        element = self._add("polygon", style)
        element.set("points", _points(points))
        if tip:
            ElementTree.SubElement(element, "title").text = tip

    def polyline(self, points: list[tuple[float, float]], style: str) -> None:
        """An open line through the points."""
        self._add("polyline", style).set("points", _points(points))

    def text(self, x: float, y: float, content: str, style: str, anchor: str = "start") -> None:
        """Text on the baseline `y`."""
        element = self._add("text", style, x=x, y=y)
        element.set("text-anchor", anchor)
        element.text = content

    def __str__(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")

    def _add(self, tag: str, style: str, **numbers: float) -> ElementTree.Element:
        values = {name: _n(value) for name, value in numbers.items()}
        return ElementTree.SubElement(self.root, tag, {"class": style, **values})


class Scale:
    """A linear map from data values to positions, with round tick values."""

    def __init__(self, low: float, high: float, start: float, end: float, ticks: int = 6) -> None:
        self.step = _round_step((high - low) / max(ticks - 1, 1))
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = math.ceil(high / self.step - 1e-9) * self.step
        if self.high <= self.low:
            self.high = self.low + self.step
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values from low to high."""
        count = round((self.high - self.low) / self.step)
        return [self.low + index * self.step for index in range(count + 1)]


def _round_step(step: float) -> float:
    if not math.isfinite(step) or step <= 0:
        return 0.01
    magnitude = 10.0 ** math.floor(math.log10(step))
    return next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= step * 0.999)


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
