"""A question with its right answer, and its line in a data file."""

from __future__ import annotations

from dataclasses import dataclass, replace

LETTERS = "ABCDE"


@dataclass(frozen=True)
class Question:
    """A question with its right answer: a letter for multiple choice, a number as text for numerical.

    `reasoning` leads from the cognitive map to the answer, without its letter, which `explained` adds. `about` are the
    categories that it names, in the order of their roles: where one stands, what one faces, what is asked for.
    """

    question_type: str
    problem_type: str
    text: str
    options: tuple[str, ...]
    answer: str
    reasoning: str
    about: tuple[str, ...] = ()

    def drawn_last(self) -> tuple[str, ...]:
        """The categories that the answer depends on, in the order in which a map to reason from ends with them."""
        return self.about + (self.options if self.question_type == "object_rel_distance" else ())

    def lettered_options(self) -> list[str]:
        """The options with letters, `A. …`, `B. …`, as in data files."""
        return [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]

    def content(self) -> str:
        """The right answer's content: the text of the right option, or the number."""
        return self.options[LETTERS.index(self.answer)] if self.options else self.answer

    def explained(self) -> str:
        """The reasoning, followed by the right letter for multiple choice, on one line."""
        return f"{self.reasoning} That is {self.answer}." if self.options else self.reasoning

    def with_right_at(self, letter: str) -> Question:
        """The same multiple-choice question with the right option at `letter`; the others keep their order."""
        right, place = self.content(), LETTERS.index(letter)
        wrong = tuple(option for option in self.options if option != right)
        return replace(self, options=(*wrong[:place], right, *wrong[place:]), answer=letter)


def data_line(question: Question, problem_id: str, scene: str, path: str, source: str) -> dict[str, object]:
    """A question in the fields of SpaceR-151k, plus its type, scene and reasoning.

    `path` is the scene's video, relative to the data root.
    """
    return {
        "problem_id": problem_id,
        "problem": question.text,
        "data_type": "video",
        "problem_type": question.problem_type,
        "options": question.lettered_options(),
        "solution": f"<answer>{question.answer}</answer>",
        "path": path,
        "data_source": source,
        "scene": scene,
        "question_type": question.question_type,
        "reasoning": question.explained(),
    }
