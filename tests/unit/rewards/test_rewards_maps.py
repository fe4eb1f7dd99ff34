"""The map reward: what is read from a map, and what it is worth."""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacer.rewards import has_map, map_score, parse_map, written_map
from spacer.rewards.matching import matched_worth

CATEGORIES = ["chair", "coffee table", "table", "tv"]


# what stands beside a category, and its points
VALUES: list[tuple[str, list[tuple[int, int]]]] = [
    ("[[1, 2], [3, 4]]", [(1, 2), (3, 4)]),
    ("((1, 2), (3, 4))", [(1, 2), (3, 4)]),
    ("[(1, 2)]", [(1, 2)]),
    ("[1, 2]", [(1, 2)]),  # one un-nested pair is one point
    ("(1, 2)", [(1, 2)]),
    ("'2, 6'", [(2, 6)]),
    ("['2, 6', \"(3, 4)\"]", [(2, 6), (3, 4)]),
    ("[[1.9, 2.1]]", [(1, 2)]),  # floats are truncated
    ("[[-1.9, -0.5]]", [(-1, 0)]),
    ("[[1e0, .5]]", [(1, 0)]),
    ("[[12, -3]]", [(12, -3)]),  # outside the grid, but a prediction
    ("[None]", []),
    ("None", []),
    ("[[None, 2], [3, 4]]", [(3, 4)]),
    ("[[1, 2, 3]]", []),
    ("[1, 2, 3]", []),
    ("[[1], [3, 4]]", [(3, 4)]),
    ("'1, 2, 3'", []),
    ("[[1e999, 2], [3, 4]]", [(3, 4)]),
    ("[[True, 2], [3, False]]", []),
    ("[]", []),
    ("{}", []),
    ("7", []),
    ("'near the door'", []),
    # what a person can read
    ("[['1', '2']]", [(1, 2)]),  # numbers as text
    ("[['1', '2'], ['3', '4']]", [(1, 2), (3, 4)]),
    ("['1', '2']", [(1, 2)]),
    ("[['x: 1', 'y: 2.5']]", [(1, 2)]),
    ("[[[1, 2]], [[3, 4]]]", [(1, 2), (3, 4)]),  # brackets too many
    ("[[[1, 2], [3, 4]]]", [(1, 2), (3, 4)]),
    ("(((1, 2),),)", [(1, 2)]),
    ("'[1, 2]'", [(1, 2)]),
    ("'[1,2],[3,4]'", [(1, 2), (3, 4)]),  # several in one text
    ("'[[1, 2], [3, 4]]'", [(1, 2), (3, 4)]),
    ("'(1, 2) and (3, 4)'", [(1, 2), (3, 4)]),
    ("'1,2; 3,4'", [(1, 2), (3, 4)]),
    ("['[1,2],[3,4]', [5, 6]]", [(1, 2), (3, 4), (5, 6)]),
    ("'[1,2],[3,4,5]'", [(1, 2)]),
    ("[1, 2, 3, 4]", [(1, 2), (3, 4)]),  # all in one list
    ("{'x': 1, 'y': 2}", [(1, 2)]),
    ("{'y': 2, 'X': '1'}", [(1, 2)]),
    ("[{'x': 1, 'y': 2}, {'x': 3.9, 'y': 4}]", [(1, 2), (3, 4)]),
    ("{'id': 7, 'x': 1, 'y': 2}", [(1, 2)]),
    ("{'position': [1, 2]}", [(1, 2)]),
    ("{'count': 2, 'points': [[1, 2], [3, 4]]}", [(1, 2), (3, 4)]),
    ("{'chair 1': [1, 2], 'chair 2': [3, 4]}", [(1, 2), (3, 4)]),
    # and what nobody can
    ("[['1', '2', '3']]", []),
    ("[['one', 'two']]", []),
    ("[[1, 2, 3, 4]]", []),  # a box, perhaps
    ("{'x': 1}", []),
    ("{'x': None, 'y': 2}", []),
    ("{'count': 2, 'id': 5}", []),
    (f"[[1, 1{'0' * 400}], [3, 4]]", [(3, 4)]),  # beyond the floats
    (f"[[5, 1{'0' * 300}]]", [(5, 10**300)]),  # huge, and far away
]


@pytest.mark.parametrize(("value", "points"), VALUES)
def test_points_of_a_literal(value: str, points: list[tuple[int, int]]) -> None:
    assert parse_map(f"<map>{{'chair': {value}}}</map>", CATEGORIES) == ({"chair": points} if points else {})


# maps of a chair and a TV, under a key or in a list
DEEPER = [
    '{"map": {"chair": [[1, 2]], "tv": [[3, 4]]}}',
    '{"cognitive map": {"objects": {"Chair": [1, 2], "TV": [3, 4]}}}',
    '{"grid": [10, 10], "objects": {"chair": [[1, 2]], "tv": [[3, 4]]}}',
    '{"objects": [{"name": "chair", "x": 1, "y": 2}, {"name": "tv", "x": 3, "y": 4}]}',
    '{"objects": [{"category": "Chair", "position": [1, 2]}, {"category": "TV", "position": "[3, 4]"}]}',
    '[{"chair": [[1, 2]]}, {"tv": [[3, 4]]}]',
    '{"chair": {"x": 1, "y": 2}, "tv": {"x": 3, "y": 4}}',
]


@pytest.mark.parametrize("text", DEEPER)
def test_a_map_that_stands_deeper_is_found(text: str) -> None:
    assert parse_map(f"<map>{text}</map>", CATEGORIES) == {"chair": [(1, 2)], "tv": [(3, 4)]}
    assert map_score(f"<map>{text}</map>", {"chair": [[1, 2]], "tv": [[3, 4]]}) == 1


def test_a_map_under_a_key_is_shown_as_what_it_names() -> None:
    drawn = '<map>{"map": {"unicorn": [[1, 2]], "tv": [[3, 4]]}}</map>'
    assert written_map(drawn, ["tv"]) == {"unicorn": [(1, 2)], "tv": [(3, 4)]}
    assert written_map("<map>{'unicorn': {'x': 1, 'y': 2}}</map>") == {"unicorn": [(1, 2)]}


@pytest.mark.parametrize(
    ("key", "category"),
    [
        ("chair", "chair"),
        ("Chair", "chair"),
        ("CHAIR", "chair"),
        ("<Chair>:", "chair"),
        (" chair. ", "chair"),
        ("[chair]", "chair"),
        ("Coffee  Table", "coffee table"),
        ("chairs", None),  # no plurals
        ("chair 1", None),  # no numbered names
        ("chair_1", None),
        ("armchair", None),
        ("sofa", None),  # not in the scene's list
        ("", None),
    ],
)
def test_keys_of_a_literal(key: str, category: str | None) -> None:
    found = parse_map(f'<map>{{"{key}": [[1, 2]]}}</map>', CATEGORIES)
    assert found == ({category: [(1, 2)]} if category else {})


def test_categories_match_whatever_their_own_case() -> None:
    assert parse_map("{'tv': [[1, 2]], 'chair': [[3, 4]]}", ["TV", "<Chair>"]) == {"TV": [(1, 2)], "<Chair>": [(3, 4)]}


# and whole or damaged ones of the same
ALIKE = [
    '{"chair": [[1, 2]], "tv": [[3, 4]]}',
    "```python\n{'chair': [[1, 2]], 'tv': [[3, 4]]}\n```",
    "map = {'chair': [[1, 2]], 'tv': [[3, 4]]}",
    "{'chair': [[1, 2]], 'TV': [3, 4],}",
    # damaged: read as text
    "{'chair': [[1, 2]], 'tv': [[3, 4]]",
    "{'chair': [[1, 2], 'tv': [[3, 4]]}",
    "{chair: [[1, 2]], tv: [[3, 4]]}",
    "{'chair': [[1, 2]] 'tv': [[3, 4]]}",
    "'chair': [[1, 2]], 'tv': [[3, 4]]",
    "chair (1, 2); TV (3, 4)",
    "<Chair>: 1.7, 2\n<TV>: 3 4 5",  # an odd last number is dropped
    "{'chair': [[1, 2]], 'tv': [[3, 4], [NaN, null]]}",
    "{'chair': [[1, 2]], 'tv': [[3, 4], [1e999, 2]], }}",
    f"{{'chair': [[1, 2]], 'tv': [[3, 4], [1, {'9' * 5000}]]}}",  # too many digits for int()
    "{'chair': [[1, 2]], 'tv': [[3, 4]], 'x': __import__('os').getcwd()}",
    "{'chair': [[1, 2]], 'tv': [[3, 4]], 'x': " + "[" * 100 + "]" * 100 + "}",
    "{'chair': [[1, 2]], 'tv': [[3, 4]], []: 0}",
    "{'chair': [[1, 2]]} {'tv': [[3, 4]]}",
]


@pytest.mark.parametrize("text", ALIKE)
def test_a_map_and_its_damaged_forms_read_alike(text: str) -> None:
    assert parse_map(f"<think>chair 9 9 <map>{text}</map></think>", CATEGORIES) == {"chair": [(1, 2)], "tv": [(3, 4)]}
    assert parse_map(text, CATEGORIES) == {"chair": [(1, 2)], "tv": [(3, 4)]}


@pytest.mark.parametrize(
    "value",
    [
        *(
            "[" * 9 + "]" * 9,
            "1" + "[0]" * 9,
            "(1)(1)",
            "1-1",
            "1 -1",
            "--1",
            "not 1",
            "a.a",
            "f'{a}'",
            "lambda: 1",
            "1 2",
        ),
        *("'a' 'b'", "1 if 1 else 1", "[1 for a in 'a']", "*[1]", "b'a'", "'\\x00'", "1_000", "1j", "[1, 2]" * 9, "]["),
        "[" + "[1, 2]," * 1500 + "]",
    ],
)
def test_only_shallow_and_plain_literals_reach_the_parser(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ast.literal_eval", lambda text: pytest.fail(f"parsed {text[:100]}"))
    assert parse_map(f"{{'chair': [[1, 2]], 'x': {value}}}", ["chair"])["chair"][0] == (1, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("coffee table 1 2", {"coffee table": [(1, 2)]}),  # the longest name wins
        ("Coffee\nTable 1 2, table 3 4", {"coffee table": [(1, 2)], "table": [(3, 4)]}),
        ("chairs 1 2", {}),  # whole words
        ("armchair 1 2", {}),
        ("chair1 2 3 chair: 4, 5", {"chair": [(4, 5)]}),
        ("1 2 chair", {}),  # numbers belong to the name before them
        ("chair 1 2 chair 3 4", {"chair": [(1, 2), (3, 4)]}),
        ("chair 1 2 3 4", {"chair": [(1, 2), (3, 4)]}),
        ("chair -1 \u22122", {"chair": [(-1, -2)]}),
        ("no map at all", {}),
        ("", {}),
    ],
)
def test_the_fall_back_pairs_numbers_between_names(text: str, expected: dict[str, list[tuple[int, int]]]) -> None:
    assert parse_map(text, CATEGORIES) == expected


def test_the_longest_of_overlapping_names_wins_wherever_it_starts() -> None:
    names = ["floor lamp", "lamp stand by door"]
    assert parse_map("floor lamp stand by door 1 2", names) == {"lamp stand by door": [(1, 2)]}


def worth(*distances: float) -> float:
    return sum(max(0.0, 1 - d / (10 * math.sqrt(2))) for d in distances)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ({"chair": [[1, 2]]}, {"chair": [[1, 2]]}, 1.0),
        ({"chair": [[1, 2]]}, {"chair": [[4, 6]]}, worth(5)),
        ({"chair": [[0, 0]]}, {"chair": [[9, 9]]}, 1 - 0.9),
        ({"chair": [[10, 10]]}, {"chair": [[0, 0]]}, 0.0),  # a distance of 10·√2
        ({"chair": [[500, 500]]}, {"chair": [[0, 0]]}, 0.0),  # never below 0
        ({"chair": [[10**300, 0]]}, {"chair": [[0, 0]]}, 0.0),
        # missing and invented objects cost
        ({"chair": [[1, 2]]}, {"chair": [[1, 2], [3, 4]]}, 1 / 2),
        ({"chair": [[1, 2], [3, 4]]}, {"chair": [[1, 2]]}, 1 / 2),
        ({"chair": [[1, 2]] * 10}, {"chair": [[1, 2]]}, 1 / 10),
        ({"chair": [[1, 2], [99, 99]]}, {"chair": [[1, 2]]}, 1 / 2),
        # the closest pair first: (0,0)-(0,1), then (0,5)-(9,9), although the other way is better in sum
        ({"chair": [[0, 0], [0, 5]]}, {"chair": [[0, 1], [9, 9]]}, worth(1, math.hypot(9, 4)) / 2),
        ({"chair": [[0, 2], [0, 3]]}, {"chair": [[0, 0], [0, 2]]}, worth(0, 3) / 2),
        # weighted by the number of true points
        ({"chair": [[1, 2]]}, {"chair": [[1, 2]], "tv": [[3, 4]]}, 1 / 2),
        ({"tv": [[3, 4]]}, {"chair": [[1, 2], [5, 6], [7, 8]], "tv": [[3, 4]]}, 1 / 4),
        ({"chair": [[1, 2]], "tv": [[3, 4]]}, {"chair": [[1, 2], [5, 5]], "tv": [[3, 4]]}, (2 * 1 / 2 + 1 * 1) / 3),
        # categories that are not the scene's are ignored, whether it lacks them or has them without objects
        ({"chair": [[1, 2]], "sofa": [[1, 1]]}, {"chair": [[1, 2]]}, 1.0),
        ({"chair": [[1, 2]], "tv": [[1, 1]]}, {"chair": [[1, 2]], "tv": []}, 1.0),
        ({}, {"chair": [[1, 2]]}, 0.0),
        ({"chair": [[1, 2]]}, {}, 0.0),
        ({"chair": [[1.9, 2.9]]}, {"chair": [[1.0, 2.0]]}, 1.0),
    ],
)
def test_map_score(predicted: dict[str, Any], truth: dict[str, Any], expected: float) -> None:
    assert map_score(f"<map>{predicted}</map>", truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    "completion", ["", "{'chair': [[1, 2]]}", "<map>{'chair': [[1, 2]]}", "<map></map>", "<map>?</map>"]
)
def test_no_map_or_an_unreadable_one_scores_nothing(completion: str) -> None:
    assert map_score(completion, {"chair": [[1, 2]]}) == 0
    assert has_map(completion) == completion.endswith("</map>")


cell = st.tuples(st.integers(0, 9), st.integers(0, 9))
guess = st.tuples(st.integers(-20, 30), st.integers(-20, 30))
scene = st.dictionaries(st.sampled_from(CATEGORIES), st.lists(cell, min_size=1, max_size=8), min_size=1)


def greedy(predicted: list[tuple[int, int]], truth: list[tuple[int, int]]) -> float:
    """The closest pair first, of ties the first by coordinates."""
    predicted, truth, total = list(predicted), list(truth), 0.0
    while predicted and truth:
        squared, t, p = min(((p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2, t, p) for p in predicted for t in truth)
        total += worth(math.sqrt(squared))
        predicted.remove(p)
        truth.remove(t)
    return total


def best_greedy(predicted: tuple[tuple[int, int], ...], truth: tuple[tuple[int, int], ...]) -> float:
    """The closest pair first, and where several are as close, each of them tried."""
    if not predicted or not truth:
        return 0.0
    squares = {
        (i, j): (p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2 for i, p in enumerate(predicted) for j, t in enumerate(truth)
    }
    closest = min(squares.values())
    return worth(math.sqrt(closest)) + max(
        best_greedy(predicted[:i] + predicted[i + 1 :], truth[:j] + truth[j + 1 :])
        for (i, j), squared in squares.items()
        if squared == closest
    )


near = st.tuples(st.integers(0, 3), st.integers(0, 3))  # where ties are many


@settings(deadline=None)
@given(
    st.lists(near, max_size=5),
    st.lists(near, min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_matching_is_the_best_way_to_take_the_closest_pair_first_in_any_order(
    predicted: list[tuple[int, int]], truth: list[tuple[int, int]], rng: random.Random
) -> None:
    expected = best_greedy(tuple(predicted), tuple(truth)) / max(len(predicted), len(truth))
    for _ in range(2):
        assert map_score(f"<map>{{'tv': {predicted}}}</map>", {"tv": truth}) == pytest.approx(expected)
        rng.shuffle(predicted)
        rng.shuffle(truth)


@given(st.lists(guess, max_size=12), st.lists(cell, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_matching_is_never_worse_than_one_way_to_break_ties_and_does_not_mind_the_order(
    predicted: list[tuple[int, int]], truth: list[tuple[int, int]], rng: random.Random
) -> None:
    for search in (0, 100, 20_000):
        found = matched_worth(predicted, truth, search)
        assert found >= greedy(predicted, truth) - 1e-9
        assert matched_worth(rng.sample(predicted, len(predicted)), rng.sample(truth, len(truth)), search) == found


def test_ties_go_to_the_better_matching() -> None:
    # (1, 0) is as far from both true points: what is left is 1 or 3 away
    assert matched_worth([(1, 0), (3, 0)], [(2, 0), (0, 0)]) == pytest.approx(worth(1, 1))
    # nothing ties at once, but what is taken first decides what ties later
    line = [(0, 0), (2, 0), (4, 0), (6, 0)]
    assert matched_worth([(1, 0), (3, 0), (5, 0), (7, 0)], line) == pytest.approx(worth(1, 1, 1, 1))
    # fewer pairs of the closest kind can come to more: (2, 0)-(1, 0) alone leaves two pairs that are near each other
    crossed = matched_worth([(0, 0), (2, 0), (4, 1)], [(1, 0), (3, 0), (-1, -1)])
    assert crossed == pytest.approx(worth(1, math.sqrt(2), math.sqrt(2)))


@pytest.mark.parametrize("count", [50, 500, 1300])
def test_many_equal_and_tied_points_are_matched(count: int) -> None:
    truth = [(0, 0), (2, 0)] * count
    assert matched_worth([(1, 0), (3, 0)] * count, truth) == pytest.approx(2 * count * worth(1))


@given(scene)
def test_the_true_map_scores_one_however_it_is_written(truth: dict[str, list[tuple[int, int]]]) -> None:
    assert map_score(f"<map>{truth}</map>", truth) == pytest.approx(1.0)
    as_text = "; ".join(f"{name.upper()}: {points}" for name, points in truth.items())
    assert map_score(f"<map>{as_text}</map>", truth) == pytest.approx(1.0)


@given(scene, st.dictionaries(st.sampled_from([*CATEGORIES, "sofa"]), st.lists(guess, max_size=10)))
def test_a_map_scores_between_nothing_and_one(
    truth: dict[str, list[tuple[int, int]]], predicted: dict[str, list[tuple[int, int]]]
) -> None:
    assert 0 <= map_score(f"<map>{predicted}</map>", truth) <= 1
