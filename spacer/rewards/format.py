"""The format reward: think first, then answer, and nothing else."""

from __future__ import annotations

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_reward(completion: str) -> float:
    """1 when the completion is one `<think>…</think>` followed by one `<answer>…</answer>`, else 0.

    White space is allowed around and between the two. Stricter than the release, whose pattern also accepts nested or
    repeated tags: several answers, or one inside the thinking. A `<think>` that the prompt opens counts as part of the
    completion, and is prepended to it (`spacer.rollout.completion.Rollout`). Linear time.

    >>> format_reward("<think>The chair is nearer.</think> <answer>B</answer>")
    1.0
    >>> format_reward("<think>…</think><answer>A</answer><answer>B</answer>")
    0.0
    """
    text = completion.strip()
    if any(text.count(tag) != 1 for tag in _TAGS):
        return 0.0
    thought, _, rest = text.partition("</think>")
    return float(thought.startswith("<think>") and rest.lstrip().startswith("<answer>") and rest.endswith("</answer>"))
