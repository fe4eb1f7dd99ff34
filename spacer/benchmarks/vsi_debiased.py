"""VSI-Bench debiased (Brown et al., arXiv 2511.04655): its questions that cannot be guessed without looking.

Files, rules and metrics are those of `vsi_bench`, which reports them beside its own as `debiased/…`; here they are a
benchmark by themselves, as in today's tables. The second reading is that of VSI-Bench's authors: the first word is the
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import release, vsi_bench
from spacer.benchmarks.question import Grade, Question
from spacer.benchmarks.readings import first_word
from spacer.data.samples import Fault
from spacer.statistics.metrics import Metric

SECOND = "authors_code"
NOTE = ""


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `test_debiased.parquet`; without it, those of `test.jsonl`, or of the older
    `test-*-of-*.parquet`, that `pruned_ids.txt` does not list."""
    return vsi_bench.read_debiased(root)


def grade(question: Question, text: str) -> Grade:
    """Accuracy or mean relative accuracy of the answer."""
    word = first_word(text)
    return vsi_bench.numbered_grade(question, text, word, release.as_float(word))


def official(questions: Sequence[Question]) -> list[Metric]:
    """The eight tasks and their mean."""
    return vsi_bench.metrics([question.task for question in questions])


released = official
