"""Distances against brute force, bearings and cells by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spacer.data.scenes.scene import Point, Scene, SceneObject, bearing, box_distance, polygon_distance

STEPS = 60  # points that brute force lays along each edge

patient = hypothesis_settings(deadline=None, max_examples=80)  # the machine may be busy

coordinates = st.floats(-5, 5, allow_nan=False).map(lambda value: round(value, 3))
places = st.tuples(coordinates, coordinates)
sides = st.floats(0.1, 4, allow_nan=False).map(lambda value: round(value, 3))
angles = st.floats(-7, 7, allow_nan=False)


def box(place: Point, size: Point, yaw: float = 0.0, low: float = 0.0, high: float = 1.0) -> SceneObject:
    return SceneObject("box", (*place, (low + high) / 2), (*size, high - low), yaw, None)


boxes = st.builds(box, places, st.tuples(sides, sides), angles)


@st.composite
def convex_polygons(draw: st.DrawFn) -> list[Point]:
    """Corners counter-clockwise on a turned ellipse."""
    bends = sorted(draw(st.lists(st.floats(0, 2 * math.pi), min_size=3, max_size=7, unique=True)))
    gaps = [(after - before) % (2 * math.pi) for before, after in zip(bends, bends[1:] + bends[:1], strict=True)]
    assume(min(gaps) > 0.05)
    (x, y), (wide, high), yaw = draw(places), draw(st.tuples(sides, sides)), draw(angles)
    cos, sin = math.cos(yaw), math.sin(yaw)
    ring = [(wide * math.cos(bend), high * math.sin(bend)) for bend in bends]
    return [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in ring]


def outline(corners: list[Point]) -> np.ndarray:
    """Points along all edges, corners among them."""
    share = np.linspace(0, 1, STEPS)[:, None]
    ends = np.array([*corners, corners[0]])
    return np.concatenate([a + share * (b - a) for a, b in itertools.pairwise(ends)])


def inside(points: np.ndarray, corners: list[Point]) -> np.ndarray:
    """Even-odd rule: how often a ray to the right crosses the outline."""
    crossings = np.zeros(len(points), dtype=int)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        spans = (points[:, 1] < ay) != (points[:, 1] < by)
        if ay != by:
            crossings += spans & (points[:, 0] < ax + (points[:, 1] - ay) * (bx - ax) / (by - ay))
    return crossings % 2 == 1


def brute_distance(a: list[Point], b: list[Point]) -> tuple[float, float]:
    """The least distance between points of the two outlines, 0 where one reaches into the other, and its error."""
    points_a, points_b = outline(a), outline(b)
    step = max(math.dist(p, q) for ring in (a, b) for p, q in zip(ring, ring[1:] + ring[:1], strict=True)) / (STEPS - 1)
    if inside(points_a, b).any() or inside(points_b, a).any():
        return 0.0, step
    squares = ((points_a[:, None] - points_b[None]) ** 2).sum(-1)
    return float(np.sqrt(squares.min())), step


@patient
@given(convex_polygons(), convex_polygons())
def test_polygon_distance_is_the_least_over_all_pairs_of_points(a: list[Point], b: list[Point]) -> None:
    brute, step = brute_distance(a, b)
    assert polygon_distance(a, b) <= brute + 1e-9
    assert polygon_distance(a, b) >= brute - step
    assert polygon_distance(a, b) == pytest.approx(polygon_distance(b, a))


@patient
@given(boxes, boxes)
@example(box((0, 0), (4, 0.2)), box((0, 0), (4, 0.2), math.pi / 2))  # a cross: no corner of one lies in the other
@example(box((0, 0), (4, 4)), box((0.5, 0.5), (0.2, 0.2), 0.3))  # one inside the other
def test_box_distance_of_boxes_on_one_floor(a: SceneObject, b: SceneObject) -> None:
    brute, step = brute_distance(list(a.footprint()), list(b.footprint()))
    assert brute - step <= box_distance(a, b) <= brute + 1e-9


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (box((0, 0), (2, 2)), box((4, 0), (2, 2)), 2.0),  # side by side
        (box((0, 0), (2, 2)), box((5, 6), (2, 2)), 5.0),  # corner to corner: 3, 4, 5
        (box((0, 0), (2, 2)), box((2, 0), (2, 2)), 0.0),  # touching
        (box((0, 0), (2, 2)), box((0, 0), (0.5, 0.5), 1.0), 0.0),  # one on the other's place
        (box((0, 0), (2, 2)), box((3, 0), (2, 2), math.pi / 4), 2 - math.sqrt(2)),  # a diamond's corner to a side
        (box((0, 0), (4, 1), math.pi / 2), box((2, 0), (1, 1)), 1.0),  # a quarter turn swaps the sides
        (box((0, 0), (1, 1), low=0, high=1), box((0, 0), (1, 1), low=3, high=4), 2.0),  # a lamp over a table
        (box((0, 0), (1, 1), low=0, high=1), box((4, 0), (1, 1), low=5, high=6), 5.0),  # 3 aside and 4 up
        (box((0, 0), (1, 1), low=0, high=1), box((4, 0), (1, 1), low=0.5, high=6), 3.0),  # heights that overlap
    ],
)
def test_box_distance_by_hand(a: SceneObject, b: SceneObject, distance: float) -> None:
    assert box_distance(a, b) == pytest.approx(distance)
    assert box_distance(b, a) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("origin", "facing", "target", "degrees"),
    [
        ((0, 0), (0, 1), (0, 5), 0),  # ahead
        ((0, 0), (0, 1), (-1, 0), 90),  # left
        ((0, 0), (0, 1), (1, 0), -90),  # right
        ((0, 0), (0, 1), (0, -1), 180),  # behind: 180 belongs to the range, -180 does not
        ((0, 0), (0, -1), (0, 1), 180),
        ((0, 0), (-1, 0), (1, 0), 180),
        ((0, 0), (0, 1), (-2, 2), 45),
        ((0, 0), (0, 1), (1, -1), -135),
        ((0, 0), (-1, 1), (-1, -1), 90),  # over the cut of atan2
        ((0, 0), (-1, -1), (-1, 1), -90),
        ((3, 4), (3, 2), (4, 4), 90),  # looking down the plan, +x is to the left
    ],
)
def test_bearing_by_hand(origin: Point, facing: Point, target: Point, degrees: float) -> None:
    assert bearing(origin, facing, target) == pytest.approx(degrees)


@patient
@given(places, places, places)
def test_bearing_agrees_with_cross_and_dot_products(origin: Point, facing: Point, target: Point) -> None:
    look, aim = np.subtract(facing, origin), np.subtract(target, origin)
    length = float(np.hypot(*look) * np.hypot(*aim))
    assume(length > 1e-2)
    angle = bearing(origin, facing, target)
    assert -180 < angle <= 180
    assert math.sin(math.radians(angle)) == pytest.approx((look[0] * aim[1] - look[1] * aim[0]) / length, abs=1e-6)
    assert math.cos(math.radians(angle)) == pytest.approx(float(look @ aim) / length, abs=1e-6)


@pytest.mark.parametrize(
    ("place", "cell"),
    [
        ((0.0, 0.0), (0, 0)),
        ((0.399, 0.599), (0, 0)),
        ((0.4, 0.6), (1, 1)),  # a border belongs to the cell above it
        ((2.0, 3.0), (5, 5)),
        ((3.6, 5.4), (9, 9)),
        ((3.999, 5.999), (9, 9)),
        ((4.0, 6.0), (9, 9)),  # the far wall belongs to the last cell
        ((-0.5, 6.5), (0, 9)),  # a centre beyond a wall counts as at the wall
    ],
)
def test_cell_edges_of_a_room_of_4_by_6(place: Point, cell: tuple[int, int]) -> None:
    assert Scene("room", (0.0, 0.0, 4.0, 6.0), 24.0, ()).cell(place) == cell


def test_cells_count_from_the_bounds_corner() -> None:
    scene = Scene("room", (-2.0, 10.0, 2.0, 16.0), 24.0, ())
    assert scene.cell((-2.0, 10.0)) == (0, 0)
    assert scene.cell((0.0, 10.7)) == (5, 1)


def test_cognitive_map_lists_every_object_in_sorted_cells() -> None:
    places = {"plant": [(3.9, 0.1), (0.1, 5.9)], "bed": [(2.0, 3.0)]}
    objects = tuple(
        SceneObject(category, (*place, 0.5), (1, 1, 1), 0.0, None)
        for category, spots in places.items()
        for place in spots
    )
    scene = Scene("room", (0.0, 0.0, 4.0, 6.0), 24.0, objects)
    assert scene.cognitive_map() == {"bed": [[5, 5]], "plant": [[0, 9], [9, 0]]}
    assert list(scene.cognitive_map()) == ["bed", "plant"]
    assert [item.category for item in scene.unique_objects()] == ["bed"]
