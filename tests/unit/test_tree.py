"""Prefix trees: random prompts and completions against lists in plain Python."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spacer.tree.forest import Completion, Forest, Segment, share
from spacer.tree.packing import pack
from tests.unit.forests import (
    UNBOUNDED,
    any_planted,
    budgets,
    common,
    deep_forests,
    families,
    one_video,
    patient,
    planted,
    prompts,
    seen_by,
    segment,
    shared_forests,
    tokens,
    whole,
)


@patient
@given(st.lists(prompts(), max_size=6))
def test_each_path_holds_its_prompt(drawn: list[Segment]) -> None:
    forest = share(drawn)
    assert len(forest.ends) == len(drawn)
    for n, prompt in enumerate(drawn):
        path = forest.path(forest.ends[n])
        assert path[-1] == forest.ends[n]
        assert [token for place in path for token in tokens(forest.segments[place])] == tokens(prompt)
        assert tokens(forest.prompt(n)) == tokens(prompt)


@patient
@given(st.lists(prompts(), max_size=6))
def test_parents_come_first_and_no_segment_is_empty(drawn: list[Segment]) -> None:
    for place, part in enumerate(share(drawn).segments):
        assert part.parent is None or 0 <= part.parent < place
        assert len(part) > 0


@patient
@given(st.lists(prompts(), min_size=1, max_size=6))
def test_prompts_about_one_medium_share_all_that_they_begin_with_and_others_nothing(drawn: list[Segment]) -> None:
    forest = share(drawn)
    expected = 0
    for family in families(drawn):
        paths = [forest.path(forest.ends[n]) for n in family]
        begin = common([tokens(drawn[n]) for n in family]) if len(family) > 1 else 0
        if begin:
            assert len({path[0] for path in paths}) == 1
            assert len(forest.segments[paths[0][0]]) == begin
        assert [len(path) for path in paths] == [1 + bool(begin)] * len(family)
        expected += bool(begin) + len(family)
    assert len(set(forest.ends)) == len(drawn)
    assert len(forest.segments) == expected  # so that no two families have one in common


def test_equal_prompts_about_a_video_keep_their_last_tokens_and_equal_texts_share_nothing() -> None:
    seen, text = segment([9, 1, 1], [0, -1, -1]), segment([1, 1, 1], [-1] * 3)
    forest = share([text, seen, seen, text])
    assert [(len(part), part.parent) for part in forest.segments] == [(3, None), (2, None), (1, 1), (1, 1), (3, None)]
    assert forest.ends == (0, 2, 3, 4)


def test_prompts_part_where_their_pictures_do() -> None:
    forest = share([segment([9, 9, 1], [0, 1, -1]), segment([9, 9, 1], [0, 2, -1])])
    assert [(part.vision_L.tolist(), part.parent) for part in forest.segments] == [
        ([0], None),
        ([1, -1], 0),
        ([2, -1], 0),
    ]


def test_no_prompts_make_no_forest() -> None:
    assert share([]) == Forest((), ())
    assert pack(share([]), None, 1) == []


# ---- pack


def test_a_row_worked_out_by_hand() -> None:
    prompts, completions = one_video()
    (row,) = pack(share(prompts), completions, 7)
    #         video 0 1, question 1: 2, its completion 3, question 2: 4 5, its first completion 6 and its second nothing
    assert row.ids_L.tolist() == [9, 9, 1, 4, 2, 3, 6]
    assert row.vision_L.tolist() == [0, 1, -1, -1, -1, -1, -1]
    assert row.positions_3L.tolist() == [[0, 1, 2, 3, 2, 3, 4]] * 3
    assert row.mask().int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 1, 1, 1],
    ]
    assert row.segments == (0, 1, 2)
    assert row.completions == (1, 0, 2)
    assert row.targets_N.tolist() == [4, 5, 6, 7, 8]
    assert row.predictors_N.tolist() == [2, 3, 5, 6, 5]
    assert row.owner_N.tolist() == [0, 0, 1, 1, 2]
    assert row.token_N.tolist() == [0, 1, 0, 1, 0]


def test_a_tree_that_is_too_large_is_cut_between_its_branches() -> None:
    prompts, completions = one_video()
    first, second = pack(share(prompts), completions, 6)
    assert (first.ids_L.tolist(), first.completions) == ([9, 9, 1, 4], (1,))
    assert (second.ids_L.tolist(), second.completions) == ([9, 9, 2, 3, 6], (0, 2))
    rows = pack(share(prompts), completions, 1)
    assert [row.ids_L.tolist() for row in rows] == [[9, 9, 1, 4], [9, 9, 2, 3, 6], [9, 9, 2, 3]]


def test_a_tree_that_fits_into_a_row_is_not_cut_to_fill_the_last_one() -> None:
    texts = [segment([1, 1], [-1, -1]), segment([0, 0], [-1, -1])]
    completions = [Completion(n, torch.tensor([2, 3, 4])) for n in (0, 0, 1, 1)]
    rows = pack(share(texts), completions, 10)  # each tree has 6 tokens, and half of the second would fit too
    assert [(len(row), row.completions) for row in rows] == [(6, (0, 1)), (6, (2, 3))]


@patient
@given(any_planted, budgets)
def test_a_token_sees_its_own_segment_so_far_and_its_ancestors_whole(
    drawn: tuple[Forest, list[Completion]], budget: int
) -> None:
    forest, completions = drawn
    for row in pack(forest, completions, budget) + pack(forest, None, budget):
        for span in row.spans:
            above: list[int] = []
            parent = span.parent
            while parent is not None:
                above += range(row.spans[parent].start, row.spans[parent].stop)
                parent = row.spans[parent].parent
            for token in range(span.start, span.stop):
                assert seen_by(row, token) == sorted(above) + list(range(span.start, token + 1))


@patient
@given(any_planted, budgets)
def test_a_predictor_sees_the_prompt_and_the_completion_so_far_and_nothing_else(
    drawn: tuple[Forest, list[Completion]], budget: int
) -> None:
    forest, completions = drawn
    for row in pack(forest, completions, budget):
        held = tokens(row)
        for n, (owner, t) in enumerate(zip(row.owner_N.tolist(), row.token_N.tolist(), strict=True)):
            completion = completions[row.completions[owner]]
            prompt = forest.prompt(completion.prompt)
            sequence, before = whole(prompt, completion), len(prompt) + t
            seen = seen_by(row, int(row.predictors_N[n]))
            assert [held[place] for place in seen] == sequence[:before]
            assert int(row.targets_N[n]) == sequence[before][0]
            for i, place in enumerate(seen):  # and so it is for all tokens on the way
                assert seen_by(row, place) == seen[: i + 1]


@patient
@given(any_planted, budgets)
def test_every_token_of_every_completion_is_predicted_once(drawn: tuple[Forest, list[Completion]], budget: int) -> None:
    forest, completions = drawn
    rows = pack(forest, completions, budget)
    assert sorted(place for row in rows for place in row.completions) == list(range(len(completions)))
    for row in rows:
        expected = [
            (owner, t, token)
            for owner, place in enumerate(row.completions)
            for t, token in enumerate(completions[place].ids_C.tolist())
        ]
        found = zip(row.owner_N.tolist(), row.token_N.tolist(), row.targets_N.tolist(), strict=True)
        assert list(found) == expected
        assert len(row.predictors_N) == len(expected)


@patient
@given(planted(shared_forests), budgets)
def test_rows_take_completions_in_the_order_of_their_prompts_in_the_trees(
    drawn: tuple[Forest, list[Completion]], budget: int
) -> None:
    forest, completions = drawn
    taken = [place for row in pack(forest, completions, budget) for place in row.completions]
    assert taken == sorted(range(len(completions)), key=lambda place: (forest.ends[completions[place].prompt], place))


@patient
@given(any_planted, budgets)
def test_a_row_exceeds_the_budget_for_a_single_completion_alone(
    drawn: tuple[Forest, list[Completion]], budget: int
) -> None:
    forest, completions = drawn
    for row in pack(forest, completions, budget):
        if len(row) > budget:
            (place,) = row.completions
            prompt = forest.prompt(completions[place].prompt)
            assert len(row) == len(prompt) + len(completions[place].ids_C) - 1


@patient
@given(any_planted, budgets)
def test_no_tree_is_cut_and_no_row_opened_without_need(drawn: tuple[Forest, list[Completion]], budget: int) -> None:
    forest, completions = drawn
    rows = pack(forest, completions, budget)

    def length(segments: set[int], places: set[int]) -> int:
        in_prompts = sum(len(forest.segments[i]) for i in segments)
        return in_prompts + sum(len(completions[i].ids_C) - 1 for i in places)

    for row, following in pairwise(rows):
        together = length({*row.segments, *following.segments}, {*row.completions, *following.completions})
        assert together > budget
    trees: dict[int, tuple[set[int], set[int]]] = {}
    for place, completion in enumerate(completions):
        path = forest.path(forest.ends[completion.prompt])
        segments, places = trees.setdefault(path[0], (set(), set()))
        segments.update(path)
        places.add(place)
    for root, tree in trees.items():
        if length(*tree) <= budget:
            assert sum(root in row.segments for row in rows) == 1


@patient
@given(any_planted)
def test_with_room_for_all_there_is_one_row_and_each_segment_that_is_needed_stands_once(
    drawn: tuple[Forest, list[Completion]],
) -> None:
    forest, completions = drawn
    rows = pack(forest, completions, UNBOUNDED)
    assert len(rows) == bool(completions)
    for row in rows:
        needed = {place for c in completions for place in forest.path(forest.ends[c.prompt])}
        assert sorted(row.segments) == sorted(needed)
        lengths = [len(forest.segments[place]) for place in needed] + [len(c.ids_C) - 1 for c in completions]
        assert len(row) == sum(lengths)


@patient
@given(shared_forests | deep_forests(), budgets)
def test_without_completions_every_segment_has_a_row_that_holds_its_path(forest: Forest, budget: int) -> None:
    rows = pack(forest, None, budget)
    assert {place for row in rows for place in row.segments} == set(range(len(forest.segments)))
    for row in rows:
        assert (row.completions, row.targets_N.tolist(), row.predictors_N.tolist()) == ((), [], [])
        assert row.unpack(torch.zeros(0)).shape == (0, 0)
        assert len(row) <= budget or list(row.segments) == forest.path(row.segments[-1])
        held = tokens(row)
        for place, span in zip(row.segments, row.spans, strict=True):
            path = forest.path(place)
            seen = seen_by(row, span.stop - 1)
            assert [held[i] for i in seen] == [token for part in path for token in tokens(forest.segments[part])]
    assert sorted(pack(forest, None, UNBOUNDED)[0].segments) == list(range(len(forest.segments)))


@patient
@given(any_planted, budgets)
def test_what_descends_from_a_span_follows_it_without_a_gap(
    drawn: tuple[Forest, list[Completion]], budget: int
) -> None:
    for row in pack(*drawn, budget):
        assert [span.start for span in row.spans] == [0, *(span.stop for span in row.spans[:-1])]
        assert row.spans[-1].stop == len(row)
        below: list[list[int]] = [[] for _ in row.spans]
        for place, span in enumerate(row.spans):
            assert span.parent is None or span.parent < place
            above = span.parent
            while above is not None:
                below[above] += range(span.start, span.stop)
                above = row.spans[above].parent
        for span, found in zip(row.spans, below, strict=True):
            assert found == list(range(span.stop, span.below))


@patient
@given(any_planted, budgets)
def test_unpack_puts_values_where_their_tokens_are_and_gradients_back(
    drawn: tuple[Forest, list[Completion]], budget: int
) -> None:
    forest, completions = drawn
    for row in pack(forest, completions, budget):
        lengths = [len(completions[place].ids_C) for place in row.completions]
        values = torch.arange(1.0, sum(lengths) + 1, dtype=torch.float64, requires_grad=True)
        table = row.unpack(values)
        numbers = iter(range(1, sum(lengths) + 1))
        assert table.tolist() == [
            [float(next(numbers)) for _ in range(length)] + [0.0] * (max(lengths) - length) for length in lengths
        ]
        (table * table.detach()).sum().backward()
        assert values.grad is not None
        assert torch.equal(values.grad, values.detach())


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_without_room_for_a_token_is_refused(budget: int) -> None:
    prompts, completions = one_video()
    for given_completions in (completions, None):
        with pytest.raises(ValueError, match=f"budget of at least one token, got {budget}"):
            pack(share(prompts), given_completions, budget)


def test_empty_completions_are_refused_by_their_numbers() -> None:
    prompts, completions = one_video()
    empty = Completion(0, torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"numbers \[1, 4\]"):
        pack(share(prompts), [completions[0], empty, *completions[1:], empty], 100)
