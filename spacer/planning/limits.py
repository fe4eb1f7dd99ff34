"""What fits on a GPU: the largest prompt, G and K, and which settings to change if nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from spacer.config.choices import Checkpointing
from spacer.config.settings import PlanSettings, Settings
from spacer.planning.memory import memory_of
from spacer.planning.setup import Setup, setup_of, work_of
from spacer.planning.sizes import Sizes, read_sizes
from spacer.planning.work import Work

GIB = 2**30
# upper ends of the search
MOST_TOKENS = 131_072  # per prompt: the models were trained on no more
MOST = 256  # completions per question, questions per video
_RANK = 64  # of suggested adapters


@dataclass(frozen=True)
class Case:
    """A run: a model, a batch and a training setup, on GPUs with `room` bytes for tensors."""

    sizes: Sizes
    work: Work
    setup: Setup
    room: int

    @property
    def peak(self) -> int:
        """Peak bytes on a GPU."""
        return memory_of(self.sizes, self.work, self.setup).peak

    @property
    def fits(self) -> bool:
        """Whether the peak fits on a GPU."""
        return self.peak <= self.room


def case_of(settings: Settings, speeds: PlanSettings) -> Case:
    """The case of a run with these settings."""
    sizes = read_sizes(settings.model)
    room = int((speeds.gpu_memory_gib - speeds.reserve_gib) * GIB)
    return Case(sizes, work_of(settings, sizes), setup_of(settings), room)


@dataclass(frozen=True)
class Limits:
    """The largest prompt (in tokens, and in frame pairs), group and number of questions per video that fit, each with
    the others unchanged; 0 if not even the smallest fits, `MOST` or `MOST_TOKENS` if more may fit.

    Questions of one video that are kept together need as many prompts per rollout.
    """

    prompt_tokens: int
    frame_pairs: int
    group: int
    questions: int


@dataclass(frozen=True)
class Remedy:
    """A change of settings, and the peak bytes per GPU after it."""

    change: str
    peak: int


def limits_of(case: Case) -> Limits:
    """The limits of each of the three."""
    work = case.work
    picture = work.pictures[0]

    def framed(frames: int) -> Case:
        return replace(case, work=replace(work, pictures=(replace(picture, frames=frames),) * len(work.pictures)))

    def grouped(group: int) -> Case:
        return replace(case, work=replace(work, group=group))

    def asked(questions: int) -> Case:
        # sampled together: the current number of prompts per rollout, or all questions of one video
        pictures = work.pictures[: max(1, work.prompts // questions)]
        return replace(case, work=replace(work, pictures=pictures, questions=questions, fewer=0))

    each = picture.height * picture.width
    frames = _largest(1, max(1, (MOST_TOKENS - work.text) // each), lambda n: framed(n).fits)
    tokens = frames * each + work.text if frames else 0
    return Limits(
        tokens,
        frames,
        _largest(2, MOST, lambda n: grouped(n).fits),
        _largest(1, MOST, lambda n: asked(n).fits),
    )


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest number that fits, assuming that all below it do; 0 if `low` does not."""
    if not fits(low):
        return 0
    step = low
    while step < high and fits(min(2 * step, high)):
        step = min(2 * step, high)
    good, bad = step, min(2 * step, high + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def remedies_of(case: Case) -> tuple[Remedy, ...]:
    """Changes that save memory, most effective first; if none suffices alone, a combination comes last."""
    found: list[Remedy] = []
    everything, words, peak = case, list[str](), case.peak
    for change, changed in _changes(case):
        saved = changed(case).peak
        if saved < 0.99 * peak:
            found.append(Remedy(change, saved))
    found.sort(key=lambda remedy: remedy.peak)
    if found and found[0].peak > case.room:
        by_name = dict(_changes(case))
        for remedy in found:
            tried = by_name[remedy.change](everything)
            if tried.peak < 0.99 * everything.peak:
                everything, words = tried, [*words, remedy.change]
            if everything.fits:
                break
        if len(words) > 1:
            found.append(Remedy(" ".join(words), everything.peak))
    return tuple(found)


def _changes(case: Case) -> Iterator[tuple[str, Callable[[Case], Case]]]:
    """Settings that need less memory than the case's, each with its effect on a case."""
    setup, work = case.setup, case.work
    if not setup.sharded and setup.ranks > 1:
        yield "cluster.strategy=fsdp", lambda c: _with(c, sharded=True, eight_bit=False)
    if setup.sharded or setup.ranks == 1:
        more = max(8, 2 * setup.ranks)
        devices = f"cluster.devices={more}" if more <= 8 else f"cluster.devices=8 cluster.num_nodes={-(-more // 8)}"
        yield f"cluster.strategy=fsdp {devices}", lambda c: _with(c, sharded=True, eight_bit=False, ranks=more)
    if setup.rank is None:
        adapters = f"'model.lora={{rank: {_RANK}, alpha: {2 * _RANK}, dropout: 0.0}}'"
        narrow = dict(rank=_RANK, vision_trained=False, adapter_bytes=4, weight_bytes=2, product_bytes=2, autocast=True)
        yield f"{adapters} model.dtype=bfloat16 trainer.precision=bf16-mixed", lambda c: _with(c, **narrow)
    if not (setup.eight_bit or setup.sharded) and setup.rank is None:
        # fsdp cannot write readable checkpoints of it
        yield "stage.optimizer.kind=adamw_8bit", lambda c: c if c.setup.sharded else _with(c, eight_bit=True)
    if setup.product_bytes > 2:
        yield "trainer.precision=bf16-mixed", lambda c: _with(c, product_bytes=2, autocast=True)
    if setup.checkpointing != Checkpointing.all:
        yield "model.gradient_checkpointing=all", lambda c: _with(c, checkpointing=Checkpointing.all)
    if setup.attention == "masked":
        yield "model.attn_implementation=auto", lambda c: _with(c, attention="flex" if setup.on_gpu else "blocks")
    if setup.reference and setup.rank is None:
        yield "objective.beta=0", lambda c: _with(c, reference=False)
    if setup.vision_trained:
        yield "model.freeze_vision=true", lambda c: _with(c, vision_trained=False)
    if len(work.pictures) > 1 or work.questions > 1:
        first = work.pictures[:1]
        yield "objective.prompts_per_rollout=1", lambda c: _working(c, pictures=first, questions=1, fewer=0)
    if work.group > 2:
        yield f"objective.group_size={work.group // 2}", lambda c: _working(c, group=work.group // 2)
    longest = max(row.tokens for row in work.rows)
    alone = work.pictures[0].tokens + work.text + work.length
    if longest > alone:
        yield f"objective.row_tokens={alone}", lambda c: _working(c, budget=alone)
    if (frames := work.pictures[0].frames) > 1:
        fewer = tuple(replace(picture, frames=frames // 2) for picture in work.pictures)
        yield (
            f"dataset.video.max_frames={frames // 2 * 2}",
            lambda c: _working(c, pictures=fewer[: len(c.work.pictures)]),
        )


def _with(case: Case, **changes: object) -> Case:
    return replace(case, setup=replace(case.setup, **changes))  # type: ignore[arg-type]


def _working(case: Case, **changes: object) -> Case:
    return replace(case, work=replace(case.work, **changes))  # type: ignore[arg-type]
