"""Tables of the forms in which final answers are stated, each with a pattern and with examples.

`spacer.rewards.reading` uses them, and the tests run every example. Patterns see text without markup (`plain_text`) and
start with a required word; repetitions are bounded or possessive, so all of them together take linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

Examples = tuple[tuple[str, str | None], ...]  # text → the option it means; None if it means none

OPTIONS = ("A. the lamp", "B. the sofa", "C. 2.5 m", "D. turn left, then right")  # the options in the examples


@dataclass(frozen=True)
class Form:
    """A way to state an answer. The meaning of `pattern` depends on the table that contains the form."""

    name: str
    pattern: str
    examples: Examples

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern. Case-sensitive, unless the pattern says otherwise."""
        return re.compile(self.pattern)


_ADVERB = (
    r"(?:(?:therefore|thus|hence|then|clearly|definitely|certainly|most likely|likely|probably|indeed|simply|actually"
    r"|still|obviously|in fact|as follows|approximately|about|around|roughly)\b,?\s?){0,2}"
)
_BE = (
    r"(?:is|s|was|are|be|remains|becomes"
    r"|(?:would|should|must|will|has to|seems to|appears to)\s(?:(?:then|thus|therefore|hence)\s)?be)"
)
_MARK = r"(?:[:=]|[-\u2013\u2014]{1,2}|[-=]>|[\u2192\u21d2])"
_SEPARATOR = rf"(?:\s?{_MARK}\s?|(?:,\s\w{{2,12}},)?\s{_BE}\b\s?[:,]?\s?{_ADVERB}:?\s?)\n?\s?"
_WHEREOF = r"(?:\s(?:to|for|of|in|here|choice|option|letter|number|key|that|which|would)\b[^.:=?\n]{0,60}?)?"
_ASIDE = r"(?:\s?\([^()\n]{0,30}\))?"
_NOUN = (
    r"(?:answers?|ans\.?|option|choice|selection|solution|result|prediction|response|conclusion|guess|estimate|letter"
    r"|(?:correct|right|best|better|(?:most|more)\s(?:appropriate|accurate|suitable))\s(?:matching\s|fitting\s)?"
    r"(?:one|match|caption|sentence|statement|description))"
)
_VERDICT = (
    r"(?:(?:the|my|our)\s)?(?:(?:most|best|only|final|correct|right|likely|accurate|appropriate|suitable|plausible|closest)\s){0,3}"
    r"(?:correct|right|accurate|true|best|answer|option|choice|match)\b"
)
_VERDICT_ENDS = (
    r"(?=\s?(?:[.,;:!)\n]|$)|\s(?:answer|option|choice|one|match|because|since|as|here|for|based|given|to)\b)"
)
_SUBJECT = r"(?:(?i:option|choice|answer|letter|sentence|caption|statement)\s)"
_LETTER = r"[(\[]?(?P<letter>[A-Z]|(?:(?<=[Oo]ption\s)|(?<=\())[a-z](?![a-z])|(?<=\s)[1-9])[)\].]?"
_GLOSS = r"(?:\s\([^()\n]{1,80}\)|,\s[^,.\n]{1,60},|:\s[^:.\n]{1,80}?)?"
_IS = rf"(?:is|was|must be|would be|should be|(?:seems|appears|looks)(?: to be)?)\s{_ADVERB}"

# The answer follows one of these. The last one in a text counts.
DECLARATIONS = (
    Form(
        "the answer is …",
        rf"(?i:\b{_NOUN}\b{_ASIDE}{_WHEREOF}{_SEPARATOR})",
        (
            ("Answer: B", "B"),
            ("The sofa is next to the door, so the answer is B.", "B"),
            ("the correct option is: **B**", "B"),
            ("Final answer: B. the sofa", "B"),
            ("The best answer to this question is (B) the sofa.", "B"),
            ("The answer would be B, because the lamp is far.", "B"),
            ("A. the lamp\nB. the sofa\nC. 2.5 m\nD. turn left\nAnswer: B", "B"),
            ("Option A is incorrect. Final answer: B.", "B"),
            ("The answer is A. Wait, no: the answer is B.", "B"),
            ("My answer is the sofa.", "B"),
            ('{"answer": "B"}', "B"),
            ("Answer -> B", "B"),
            ("Ans='B'", "B"),
            ("The answer is A or B.", None),
            ("The answer is B?", None),
            ("If the answer is B, the lamp is near.", None),
            ("The answer is hard to see.", None),
        ),
    ),
    Form(
        "a heading",
        rf"(?i:(?:^|(?<=\n))(?:the\s)?(?:(?:final|correct|best|my)\s)?{_NOUN}{_ASIDE}\n)",
        (
            ("## Final Answer\n\nB", "B"),
            ("### Answer (letter)\nB", "B"),
            ("Reasoning\nThe lamp is far.\nAnswer\n(B) the sofa", "B"),
        ),
    ),
    Form(
        "answer (B)",
        r"(?i:\banswer)\s(?=\([A-Z]\))",
        (("(A) lamp (B) sofa (C) 2.5 m (D) left. Answer (B)", "B"), ("Answer (A) or (B)", None)),
    ),
    Form(
        "a correction",
        r"(?i:\b(?:actually|correction|on second thoughts?|wait)\b[,:.]?\s"
        r"(?:(?:its|it is|it must be|it should be)\s)?)",
        (
            ("The answer is A. Actually, B.", "B"),
            ("The answer is A. Hmm, wait. It's B.", "B"),
            ("Answer: A\nCorrection: B", "B"),
            ("The answer is B. Wait, is it A?", "B"),
            ("The answer is B. Actually, A is near too.", "B"),
        ),
    ),
    Form(
        "boxed",
        r"\\?b?oxed\s?(?=\{)|\\boxed\s(?=[A-Z]\b)|\\fbox\s?(?=\{)",
        (
            (r"\boxed B", "B"),
            (r"\fbox{B}", "B"),
            (r"\boxed{B}", "B"),
            (r"So the result follows: $\boxed{\text{B}}$.", "B"),
            (r"\[ \boxed{\mathbf{B}} \]", "B"),
            (r"\boxed{B. the sofa}", "B"),
            (r"\boxed{\text{the sofa}}", "B"),
            (r"\boxed{A, B}", None),
            (r"It is \boxed{B}, not \boxed{A}.", "B"),
        ),
    ),
    Form(
        "I choose …",
        r"(?i:\b(?:I|we)(?:d|ll|m|\s(?:would|will|should|must|can))?(?:\s(?:therefore|thus|now|also))?"
        r"\s(?:choose|pick|select|go with|going with|opt for|answer|say|vote for|conclude|think|believe|guess)\b:?\s?"
        r"(?:that\s)?(?:(?:its|it is|the answer is)\s)?)",
        (
            ("I choose B.", "B"),
            ("I'd go with option B.", "B"),
            ("The lamp is far. I would say (B).", "B"),
            ("We select B, since the sofa is near.", "B"),
            ("I think the sofa is near A.", None),
            ("I think A is taller than B.", None),
        ),
    ),
    Form(
        "答案",
        r"(?:(?:答案|选项|结论|回答)(?:应该|应当|应)?\s?(?:是|为|选|[:=])|答え\s?(?:は|[:=])|정답\s?(?:은|[:=]))"
        r"\s?[:]?\n?\s?(?:选项|选择|选)?\s?",
        (
            ("答案：B", "B"),
            ("沙发离门最近，所以正确答案是B。", "B"),
            ("答案为 (B)", "B"),
            ("最终答案：B. the sofa", "B"),
            ("答えはBです。", "B"),
            ("정답은 B입니다.", "B"),
            ("答案不是A，而是B", "B"),
            ("答案是A或B", None),
            ("答案不是B", None),
        ),
    ),
    Form(
        "选",
        r"选(?!项)择?\s?:?\s?(?:选项)?",
        (("故选B。", "B"), ("我选择B，因为沙发更近。", "B"), ("应该选 B", "B"), ("选A和B", None)),
    ),
)

# Verdicts for an option, the group `letter`. The last one in a text counts, together with the declarations.
VERDICTS = (
    Form(
        "B is correct",
        rf"\b{_SUBJECT}?{_LETTER}{_GLOSS}\s{_IS}{_VERDICT}{_VERDICT_ENDS}",
        (
            ("B is correct.", "B"),
            ("option b is correct", "B"),
            ("Option B is correct, because the lamp is far.", "B"),
            ("So (B) is the right answer.", "B"),
            ("Therefore option B (the sofa) is the most accurate choice.", "B"),
            ("A is too far. B must be the correct answer.", "B"),
            ("B looks correct.", "B"),
            ("A or B is correct.", None),
            ("B is correct only if the lamp is on.", None),
            ("B is right of the lamp.", None),
        ),
    ),
    Form(
        "B fits best",
        rf"\b{_SUBJECT}?{_LETTER}{_GLOSS}\s(?:best\s(?:matches|fits|describes|answers|corresponds to)"
        r"|most closely (?:matches|fits|describes)"
        r"|(?:matches|fits|describes)\s(?:[^.\n]{0,50}?\s)?(?:best|better|most closely|correctly)\b)",
        (
            ("Option B best describes the scene.", "B"),
            ("B most closely matches the video.", "B"),
            ("B fits the video better.", "B"),
            ("B describes a lamp.", None),
        ),
    ),
    Form(
        "选项B正确",
        rf"(?:选项\s?)?{_LETTER}\s?(?:选项)?(?:是|为)?(?:正确|对)的?",
        (("选项B是正确的。", "B"), ("所以B正确", "B"), ("选项B不正确", None)),
    ),
)

# Verdicts against an option: an earlier declaration of it is withdrawn.
REFUTATIONS = (
    Form(
        "B is not correct",
        rf"\b{_SUBJECT}?{_LETTER}{_GLOSS}\s(?:{_IS}?not\s|isnt\s|cannot be\s|cant be\s|can not be\s){_VERDICT}",
        (("The answer is B. Wait, B is not correct.", None), ("The answer is B. Still, B cannot be right.", None)),
    ),
    Form(
        "B is wrong",
        rf"\b{_SUBJECT}?{_LETTER}{_GLOSS}\s{_IS}(?:incorrect|wrong|false|impossible|ruled out|eliminated)\b",
        (("I choose B. No, B is wrong.", None), ("Option A is incorrect. B", "B"), ("A is wrong. C is wrong.", None)),
    ),
)

# If there is no declaration, the answer follows one of these at the beginning of a sentence.
CONCLUSIONS = (
    Form(
        "so, …",
        r"(?i:\b(?:so|therefore|thus|hence|consequently|in conclusion|to conclude|finally|overall|in summary"
        r"|this means|that means|which means|meaning)\b[,:]?\s(?:that\s)?"
        r"(?:(?:its|it is|it must be|it should be|it would be|this is|that is|this must be|we get|we have)\s)?)",
        (
            ("So, B.", "B"),
            ("The lamp is behind the door. Therefore, B.", "B"),
            ("The lamp is far, so it must be B.", "B"),
            ("Hence it is the sofa.", "B"),
            ("So B is closer than A.", None),
            ("So A and B are near.", None),
        ),
    ),
    Form(
        "it is …",
        r"(?i:(?:^|(?<=\n)|(?<=[.!?;:]\s)|(?<=,\s)|(?<=\sand\s)|(?<=\sthink\s))(?:its|it is|it must be|it should be"
        r"|it would be|that is|this is|that would be|must be|probably|likely|most likely|definitely|clearly|certainly"
        r"|obviously|surely|(?-i:[Yy]es|[Oo]kay|OK)(?=[,:.!]?\s[(\[]?(?-i:[A-Z])\b))\b[,:.!]?\s)",
        (
            ("It is B.", "B"),
            ("It's (B).", "B"),
            ("It must be B: the sofa.", "B"),
            ("Definitely B.", "B"),
            ("Yes, B.", "B"),
            ("Clearly A is far.", None),
            ("It is a lamp.", "A"),
            ("It is B?", None),
        ),
    ),
    Form(
        "… is option B",
        r"(?i:\b(?:is|be|matches)\s(?=(?:option|choice)\b))",
        (("The nearest one to the door is option B.", "B"), ("The nearest one is option A or B.", None)),
    ),
    Form(
        "是",
        r"(?<!不)(?:而是|是)\s?(?:选项)?",
        (("离门最近的是B", "B"), ("我认为是B。", "B"), ("不是B", None), ("A是灯", None)),
    ),
    Form(
        "an arrow",
        r"(?:[-=]>|[\u2192\u21d2])\s?",
        (("lamp far, sofa near → B", "B"), ("near => (B)", "B"), ("A -> the lamp and the sofa", None)),
    ),
)

# What may follow an option's letter in an answer: after `any` letter, or only after an `upper` case one.
ENDINGS_ANY = (
    Form("end", r"(?=\s?[!]?(?:$|\n))", (("B", "B"), ("b", "B"), ("Answer: b", "B"), ("B\nThe lamp is far.", "B"))),
    Form("bracket", r"(?=[)\]}])", (("B)", "B"), ("b) the sofa", "B"), ("B]", "B"))),
    Form("mark", r"(?=[.:](?:\s|$|[)\]}]))", (("B. the sofa", "B"), ("b: the sofa", "B"), ("B.", "B"))),
    Form("dots", r"(?=\s?(?:\.{2,3}|\u2026)\s?(?:$|\n))", (("B...", "B"), ("B\u2026", "B"))),
    Form("comma at the end", r"(?=[,;]\s?(?:$|\n))", (("B,", "B"),)),
)
ENDINGS_UPPER = (
    Form("no space", r"(?=[.:]\s?[^\W\d_]{2})", (("B.the sofa", "B"), ("B:the sofa", "B"), ("U.S. flag", None))),
    Form("dash", r"(?=\s[-\u2013\u2014]{1,2}\s)", (("B - the sofa", "B"), ("B — the sofa", "B"), ("A - D", None))),
    Form("gloss", r"(?=\s?[(\[](?![A-Z1-9][)\]]))", (("B (the sofa)", "B"), ("B [the sofa]", "B"), ("A (B)", None))),
    Form(
        "reason",
        r"(?=[,;]?\s(?:because|since|as|due|given|based|according|rather|instead|not|and not|which|so|where)\b)",
        (
            ("B, because the lamp is far", "B"),
            ("B since the sofa is near", "B"),
            ("B, not A", "B"),
            ("B rather than C", "B"),
            ("B cause the lamp", None),
        ),
    ),
    Form(
        "apposition", r"(?=,\s(?:the|a|an|it|its|I|there|they|we|with|though|but|option|at)\s)", (("B, the sofa", "B"),)
    ),
    Form(
        "sure",
        r"(?=,?\s(?:for sure|for certain|obviously|clearly|definitely|it is)\b)",
        (("B for sure", "B"), ("B it is.", "B")),
    ),
    Form("field", r"(?=,\s?[a-z_]{2,20}:)", (("{option: B, reason: A is far}", "B"),)),
    Form(
        "Chinese",
        r"(?=[,;]?\s?[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af])(?!\s?[或和与及跟是不とやか])",
        (("选B因为沙发更近", "B"), ("答えはBです", "B")),
    ),
    Form("sentence", r"(?=[!;]\s)", (("B! It is near.", "B"), ("Answer: B; the lamp is far", "B"))),
)

TABLES = {
    "declarations": DECLARATIONS,
    "verdicts": VERDICTS,
    "refutations": REFUTATIONS,
    "conclusions": CONCLUSIONS,
    "endings of any letter": ENDINGS_ANY,
    "endings of a capital": ENDINGS_UPPER,
}
