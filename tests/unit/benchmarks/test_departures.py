"""How often the authors' and the release's readers differ from ours on the corpus of answers, as the docs have it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spacer.benchmarks import readings, release
from spacer.benchmarks.mra import mean_relative_accuracy_as_published
from spacer.benchmarks.view_change import AXES, accuracy, released_accuracy
from spacer.rewards import answer_text, format_reward, mean_relative_accuracy, parse_map, read_choice, read_number
from spacer.rewards.forms import OPTIONS
from spacer.rewards.matching import matched_worth
from tests.unit.benchmarks import authors
from tests.unit.rewards import released
from tests.unit.rewards.answers import LINES, Case, corpus
from tests.unit.rewards.test_rewards_format import COMPLETIONS
from tests.unit.rewards.test_rewards_maps import ALIKE, CATEGORIES, DEEPER, VALUES

DOCS = Path(__file__).parents[3] / "docs/departures.md"
Reader = Callable[[str], str | None]


def letter(text: str | None) -> str | None:
    """A reading that is a letter of the corpus's options, or nothing."""
    return text if text in ("A", "B", "C", "D") else None


def shown(number: float | None) -> str | None:
    return None if number is None else f"{number:g}"


def spar(text: str) -> str | None:
    """SPAR-Bench's rule says only whether an answer meets a truth: the letters that it does."""
    met = [truth for truth in "ABCD" if release.spar_choice(text, truth)]
    return None if not met else met[0] if len(met) == 1 else "all"


def tempcompass(text: str) -> str | None:
    met = [option[0] for option in OPTIONS if release.tempcompass_choice(text, option)]
    return met[0] if met else None


def last_of(kind: str) -> Callable[[str], str | None]:
    return lambda text: shown(release.spar_number(text, kind == "last"))


# the row in the docs → the corpus's kinds, and the other side's reader of a case of these
READERS: dict[str, tuple[tuple[str, ...], Callable[[Case], str | None]]] = {
    "VSI-Bench, a choice": (("choice",), lambda case: authors.vsi_choice(case.text)),
    "VSI-Bench, a number": (("number",), lambda case: shown(authors.vsi_number(case.text))),
    "MMSI-Bench": (("choice",), lambda case: letter(readings.mmsi(case.text))),
    "MindCube": (("choice",), lambda case: letter(readings.mindcube(case.text))),
    "ViewSpatial-Bench": (("choice",), lambda case: letter(readings.viewspatial(case.text))),
    "SITE-Bench": (("choice",), lambda case: letter(readings.site(case.text, "ABCD"))),
    "BLINK": (("choice",), lambda case: letter(readings.blink(case.text, "ABCD"))),
    "OmniSpatial": (("choice",), lambda case: letter(readings.omnispatial(case.text))),
    "MMSI-Video-Bench": (("choice",), lambda case: letter(readings.mmsi_video(case.text))),
    "STI-Bench": (("choice",), lambda case: letter(release.sti_choice(case.text))),
    "SPAR-Bench, a choice": (("choice",), lambda case: spar(case.text)),
    "SPAR-Bench, a number": (("number", "last"), lambda case: last_of(case.kind)(case.text)),
    "Video-MME": (("choice",), lambda case: letter(release.first_capital(case.text, "ABCD", also_correct=True))),
    "LongVideoBench": (("choice",), lambda case: letter(release.first_capital(case.text, "ABCDE"))),
    "TempCompass, multi-choice": (("choice",), lambda case: tempcompass(case.text)),
    "TempCompass, yes_no": (("yes_no",), lambda case: authors.tempcompass_yes_no(case.text)),
    "TempCompass, caption_matching": (("label",), lambda case: (authors.tempcompass_line(case.text, LINES) or "")[-1:]),
    "The release, VSI-Bench, a choice": (("choice",), lambda case: letter(release.vsi_choice(case.text))),
    "The release, VSI-Bench, a number": (("number",), lambda case: shown(release.vsi_number(case.text))),
    "The published reward, a choice": (("choice",), lambda case: letter(case.text.strip())),
    "Where the answer stands, the release": (("whole",), lambda case: read_choice(release.answer(case.text), OPTIONS)),
    "Where the answer stands, the published reward": (
        ("whole",),
        lambda case: read_choice(answer_text(case.text), OPTIONS),
    ),
}


def measured(row: str) -> str:
    """On how many cases of how many the reading differs, and how often it is an answer that was not given."""
    kinds, read = READERS[row]
    cases = corpus(*kinds)
    other = [reading for case in cases if (reading := read(case) or None) != case.expected]
    return f"{len(other)} of {len(cases)} ({sum(reading is not None for reading in other)} read as what was not given)"


def tolerance() -> str:
    """Predictions in steps of a twentieth of the truth, where thresholds are met exactly."""
    pairs = [(truth * k / 20, float(truth)) for truth in range(1, 51) for k in range(41)]
    differ = sum(mean_relative_accuracy(*pair) != mean_relative_accuracy_as_published(*pair) for pair in pairs)
    return f"{differ} of {len(pairs)}"


def unread() -> str:
    """Answers that no option is read from."""
    cases = corpus("choice")
    return f"{sum(case.expected is None for case in cases)} of {len(cases)}"


def motions() -> str:
    """Motions drawn at random, each off by up to half."""
    rng = random.Random(0)
    differ = 0
    for _ in range(1000):
        truth = {rng.choice(axis): round(rng.uniform(0.1, 3), 1) for axis in rng.sample(AXES, 3)}
        given = {action: round(value * rng.uniform(0.5, 1.5), 1) for action, value in truth.items()}
        as_text = [",".join(f"{action}:{value:g}" for action, value in motion.items()) for motion in (given, truth)]
        differ += accuracy(given, truth) != pytest.approx(released_accuracy(*as_text))
    return f"{differ} of 1000"


def formats() -> str:
    """Completions that are well-formed to one side alone."""
    differ = sum(released.well_formed(text) != format_reward(text) for text, _ in COMPLETIONS)
    return f"{differ} of {len(COMPLETIONS)}"


def first_numbers(read: Callable[[str], float | None]) -> str:
    """Answers in which the strict reward reads another number."""
    texts = [case.text for case in corpus("number")]
    return f"{sum(read(text) != read_number(text) for text in texts)} of {len(texts)}"


def maps() -> str:
    """Maps that are read otherwise, or that the release fails on."""

    def read(text: str) -> dict[str, list[tuple[int, int]]] | None:
        try:
            return released.read_map(text, CATEGORIES)
        except OverflowError:
            return None

    forms = [*(f"{{'chair': {value}}}" for value, _ in VALUES), *DEEPER, *ALIKE]
    return f"{sum(read(text) != parse_map(text, CATEGORIES) for text in forms)} of {len(forms)}"


def matchings() -> str:
    """Categories in which ties make a difference, and what difference."""
    rng = random.Random(0)
    gains = []
    for _ in range(1000):
        points = [[(rng.randrange(10), rng.randrange(10)) for _ in range(rng.randint(2, 6))] for _ in range(2)]
        gain = matched_worth(*points) - released.matched_worth(*points)
        gains.append(gain / max(map(len, points)))
    assert min(gains) > -1e-9
    found = [gain for gain in gains if gain > 1e-9]
    mean, most = (f"{value:.3f}".lstrip("0") for value in (sum(found) / len(found), max(found)))
    said = "random categories of 2 to 6 points on the grid"
    return f"{len(found)} of {len(gains)} {said}, by {mean} on average and {most} at most"


def frames() -> str:
    """Frames that floats put elsewhere than whole numbers do, in films of 4 s and more at the usual rates."""
    differ = films = 0
    for rate in (24, 25, 30):
        for total in range(4 * rate, 5_000):
            count = min(32, total // rate)
            exact = np.arange(count) * (total - 1) // (count - 1)
            differ += int((np.linspace(0, total - 1, count, dtype=int) != exact).sum())
            films += 1
    return f"{differ} frames of {films:,} videos"


def rows() -> dict[str, str]:
    """What the docs' tables say: the first cell of each row → the last."""
    lines = [line for line in DOCS.read_text(encoding="utf-8").split("\n") if line[:2] == "| "]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[-1] for row in cells if row[0] != "what" and set(row[0]) != {"-"}}


@pytest.mark.parametrize("row", READERS)
def test_the_docs_say_how_often_readings_differ(row: str) -> None:
    assert rows()[row].startswith(measured(row))


def test_the_docs_say_how_often_scores_differ() -> None:
    said = rows()
    assert said["Tolerance of the training reward's MRA"].startswith(tolerance())
    assert said["SPAR-Bench, view_change_infer"].startswith(motions())
    assert said["LongVideoBench, an answer that is not read"].startswith(unread())


def test_the_docs_say_how_often_rewards_differ() -> None:
    said = rows()
    assert said["Format"].startswith(formats())
    assert said["Numerical, a number"].startswith(first_numbers(release.vsi_number))
    assert said["Regression, a number"].startswith(first_numbers(released.regression_number))
    assert said["Map, its forms"].startswith(maps())
    assert said["Map, its matching"].startswith(matchings())


def test_the_docs_say_how_often_frames_differ() -> None:
    assert rows()["Frames of an evaluated video"].startswith(frames())


if __name__ == "__main__":  # to write the docs by
    for name in READERS:
        print(name, measured(name))
    print("frames", frames(), "format", formats(), "maps", maps(), "matching", matchings())
    print(*map(first_numbers, (release.vsi_number, released.regression_number)), sep=", ")
    print("tolerance", tolerance(), "motions", motions(), "unread", unread())
