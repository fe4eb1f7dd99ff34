"""A scene's annotation, as in a 3D scan, and its geometry.

Units are metres and seconds. x points right and y up on the floor plan, z up from the floor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

GRID = 10  # cells per side of a cognitive map

Point = tuple[float, float]


@dataclass(frozen=True)
class SceneObject:
    """An upright box: `centre` and `size` in metres, turned by `yaw` radians about the vertical.

    `first_seen` is the time in the video, in seconds, at which the object first appears; None if it never does.
    """

    category: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    first_seen: float | None

    @property
    def place(self) -> Point:
        """The centre on the floor plan."""
        return self.centre[0], self.centre[1]

    def footprint(self) -> tuple[Point, Point, Point, Point]:
        """The four corners on the floor plan, counter-clockwise."""
        half_x, half_y = self.size[0] / 2, self.size[1] / 2
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        corners = [
            (self.centre[0] + cos * dx - sin * dy, self.centre[1] + sin * dx + cos * dy)
            for dx, dy in ((-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y))
        ]
        return corners[0], corners[1], corners[2], corners[3]


@dataclass(frozen=True)
class Scene:
    """One room: `bounds` = (x0, y0, x1, y1) of its floor, `area` in square metres, and its objects."""

    name: str
    bounds: tuple[float, float, float, float]
    area: float
    objects: tuple[SceneObject, ...]

    def categories(self) -> list[str]:
        """Every category in the scene, in alphabetical order."""
        return sorted({item.category for item in self.objects})

    def of_category(self, category: str) -> list[SceneObject]:
        """The objects of one category."""
        return [item for item in self.objects if item.category == category]

    def unique_objects(self) -> list[SceneObject]:
        """The objects that are the only ones of their category, so that its name identifies them."""
        return [item for item in self.objects if len(self.of_category(item.category)) == 1]

    def cell(self, place: Point) -> tuple[int, int]:
        """The cell of the 10x10 grid that contains a point of the floor plan."""
        x0, y0, x1, y1 = self.bounds
        return _cell(place[0], x0, x1), _cell(place[1], y0, y1)

    def cognitive_map(self) -> dict[str, list[list[int]]]:
        """Category → cells of its objects' centres, sorted (SpaceR, cognitive map on a 10x10 grid)."""
        return {
            category: sorted([*self.cell(item.place)] for item in self.of_category(category))
            for category in self.categories()
        }


def _cell(value: float, low: float, high: float) -> int:
    return min(GRID - 1, max(0, math.floor(GRID * (value - low) / (high - low))))


def box_distance(a: SceneObject, b: SceneObject) -> float:
    """Distance in metres between the closest points of two upright boxes; 0 if they touch or overlap."""
    gap_z = max(0.0, abs(a.centre[2] - b.centre[2]) - (a.size[2] + b.size[2]) / 2)
    return math.hypot(polygon_distance(a.footprint(), b.footprint()), gap_z)


def polygon_distance(a: Iterable[Point], b: Iterable[Point]) -> float:
    """Distance between two convex polygons, given by their corners in order; 0 if they overlap."""
    a, b = list(a), list(b)
    if not _separated(a, b) and not _separated(b, a):
        return 0.0
    return min(
        min(_to_segment(corner, start, end) for corner in one for start, end in _edges(other))
        for one, other in ((a, b), (b, a))
    )


def _edges(corners: list[Point]) -> list[tuple[Point, Point]]:
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def _separated(a: list[Point], b: list[Point]) -> bool:
    """Whether an edge of the counter-clockwise polygon `a` has all of `b` on its outer side."""
    return any(
        all((end[0] - start[0]) * (p[1] - start[1]) - (end[1] - start[1]) * (p[0] - start[0]) < 0 for p in b)
        for start, end in _edges(a)
    )


def _to_segment(point: Point, start: Point, end: Point) -> float:
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((point[0] - start[0]) * dx + (point[1] - start[1]) * dy) / max(dx * dx + dy * dy, 1e-12)
    along = min(1.0, max(0.0, along))
    return math.hypot(point[0] - start[0] - along * dx, point[1] - start[1] - along * dy)


def bearing(origin: Point, facing: Point, target: Point) -> float:
    """Angle in degrees, in (-180, 180], from the direction `origin` → `facing` to `target`; positive is to the left.

    >>> round(bearing((0, 0), (0, 1), (1, 0)))
    -90
    """
    look = math.atan2(facing[1] - origin[1], facing[0] - origin[0])
    aim = math.atan2(target[1] - origin[1], target[0] - origin[0])
    turn = math.degrees(aim - look) % 360
    return turn - 360 if turn > 180 else turn
