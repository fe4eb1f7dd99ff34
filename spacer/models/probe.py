"""What a model's folder says of how it is to be talked to, read once for all stages; and that its weights are whole.

    probe = probe_model(settings.model)     # UserError where the folder would have given wrong results, or a traceback

`spacer.config.model_files` has looked at the files before torch is imported; here they are loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from spacer.config.families import FAMILIES, NAMES, Family
from spacer.config.settings import ModelSettings
from spacer.data.frames import TEMPORAL_PATCH
from spacer.data.showing import END, PADS, START
from spacer.data.tokens import TAGS, control_tokens
from spacer.errors import UserError, of_the_machine

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

_NAMED = 4  # tensors that a message names
_ASKED = "How many chairs?"
_COPY_TOKENIZER = "copy the tokenizer's files there from the model that it was made from"
_COPY_TEMPLATE = "copy chat_template.jinja there from the model that it was made from"
_NO_TEMPLATE = f"it has no chat template, so that no prompt can be made: {_COPY_TEMPLATE}"
_TEMPLATE_FAILS = (TemplateError, TypeError, ValueError, KeyError)
AGAIN = "copy the folder again from its source, or download the model again"


@dataclass(frozen=True)
class ModelProbe:
    """What rollouts, data and scoring need to know of a model beside its weights.

    A completion ends with any of `end_ids`; `pad_id` fills what follows. `hidden_ids` are control tokens, which its
    text does not show; tags such as `<answer>` are none, even where they are special tokens. `prompt_opens` is the end
    of every prompt from the first tag on that its generation prompt opens and a completion is to close, such as
    "<think>\\n"; empty where it opens none.
    """

    family: Family | None  # of a model with prefix trees
    processor: Qwen2_5_VLProcessor
    end_ids: tuple[int, ...]
    pad_id: int
    hidden_ids: frozenset[int]
    prompt_opens: str

    def decode(self, ids_C: Tensor) -> str:
        """The text of a completion's tokens."""
        shown = [token for token in ids_C.tolist() if token not in self.hidden_ids]
        return str(self.processor.tokenizer.decode(shown))


def load_config(settings: ModelSettings) -> Any:
    """A model's configuration. Raises UserError if it cannot be read, or transformers does not know its type."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    try:
        found, _ = PreTrainedConfig.get_config_dict(settings.name_or_path, revision=settings.revision)
    except (OSError, ValueError):
        found = {}  # told of below
    kind = found.get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING and not settings.trust_remote_code:
        raise UserError(
            f"model.name_or_path={settings.name_or_path}: its config.json names a model of type {kind}, which the "
            f"installed transformers does not know: upgrade it, or choose another model, such as one of {NAMES}"
        )
    return _load("AutoConfig", settings, "its config.json cannot be read")


def probe_model(settings: ModelSettings, plain: bool = False) -> ModelProbe:
    """Reads a model's configuration, tokenizer, chat template and processor, of any family if it is computed plainly.

    Raises:
        UserError: one of them is damaged, missing or does not fit the others; it names which and the remedy.
    """
    where = f"model.name_or_path={settings.name_or_path}"
    config = load_config(settings)
    family = FAMILIES.get(config.model_type)
    if family is None and not plain:
        raise UserError(
            f"{where}: its config.json names a model of type {config.model_type}: choose a model of a supported "
            f"family, {NAMES}"
        )
    processor = _load("AutoProcessor", settings, "its tokenizer or processor cannot be loaded")
    problems = _misfits_if_plain(processor, config) if family is None else _misfits(processor, config, family)
    for problem in problems:
        raise UserError(f"{where}: {problem}")
    tokenizer = processor.tokenizer
    end_ids = _end_ids(settings, config, tokenizer)
    if not end_ids:
        raise UserError(
            f"{where}: neither generation_config.json nor the tokenizer names a token that ends completions: set "
            "eos_token_id in generation_config.json"
        )
    return ModelProbe(
        family,
        processor,
        end_ids,
        end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        frozenset(control_tokens(tokenizer).values()),
        _opened(processor),
    )


def _load(kind: str, settings: ModelSettings, problem: str) -> Any:
    """`from_pretrained` of a class of transformers."""
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(
            settings.name_or_path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:  # tokenizers raises no other class than this for files that it cannot read
        if (known := of_the_machine(error)) is not None:
            raise known from error
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"model.name_or_path={settings.name_or_path}: {problem} ({type(error).__name__}: {said}): {AGAIN}"
        ) from error


def _misfits(processor: Any, config: Any, family: Family) -> Iterator[str]:
    """What of a processor does not fit the model, each with its remedy."""
    name = type(processor).__name__
    if not all(hasattr(processor, part) for part in ("tokenizer", "image_processor", "video_processor")):
        yield (
            f"it has no processor of images and videos, so that {name} was loaded alone: copy processor_config.json "
            f"(or preprocessor_config.json and video_preprocessor_config.json) there from the {family.name} model "
            "that it was made from"
        )
        return
    if family.processor not in {kind.__name__ for kind in type(processor).__mro__}:
        yield (
            f"its config.json is of {family.name} and its processor a {name}: copy the processor's files there from "
            f"the {family.name} model that it was made from"
        )
        return
    vision = config.vision_config
    sizes = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }
    for part in ("image_processor", "video_processor"):
        for size, wanted in sizes.items():
            found = getattr(getattr(processor, part), size)
            if found != wanted:
                yield (
                    f"its {part} has {size}={found}, and its config.json {wanted}: copy the processor's files there "
                    f"from the {family.name} model that it was made from"
                )
    if vision.temporal_patch_size != TEMPORAL_PATCH:
        yield f"it joins {vision.temporal_patch_size} frames to a patch, and Spacer shows videos in pairs of frames"
    yield from _misfits_of_tokenizer(processor.tokenizer, config)
    yield from _misfits_of_template(processor)


def _misfits_if_plain(processor: Any, config: Any) -> Iterator[str]:
    """As `_misfits` for a model of any family."""
    if not all(hasattr(processor, part) for part in ("tokenizer", "image_processor")):
        yield (
            f"it has no processor of images and text, so that {type(processor).__name__} was loaded alone: copy "
            "processor_config.json (or preprocessor_config.json) there from the model that it was made from"
        )
        return
    yield from _misfits_of_embeddings(processor.tokenizer, config)
    if processor.chat_template is None:
        yield _NO_TEMPLATE
        return
    try:
        chat = _chat(processor, [{"type": "text", "text": _ASKED}])
    except _TEMPLATE_FAILS as error:
        yield f"its chat template fails on a question ({type(error).__name__}: {error}): {_COPY_TEMPLATE}"
        return
    if _ASKED not in chat:
        yield f"its chat template leaves out the text of a question: {_COPY_TEMPLATE}"


def _misfits_of_tokenizer(tokenizer: Any, config: Any) -> Iterator[str]:
    remedy = _COPY_TOKENIZER
    wanted = dict(zip(PADS, (config.image_token_id, config.video_token_id), strict=True))
    for mark in (START, *PADS, END):
        number = tokenizer.get_vocab().get(mark)
        if number is None:
            yield f"its tokenizer has no token {mark}, which stands for pictures in prompts: {remedy}"
        elif number != wanted.get(mark, number):
            yield f"its tokenizer has token {number} for {mark}, and its config.json {wanted[mark]}: {remedy}"
    yield from _misfits_of_embeddings(tokenizer, config)


def _misfits_of_embeddings(tokenizer: Any, config: Any) -> Iterator[str]:
    rows = config.get_text_config().vocab_size
    if max(tokenizer.get_vocab().values()) >= rows:
        yield (
            f"its tokenizer has {len(tokenizer)} tokens, and the model embeddings for {rows}: {_COPY_TOKENIZER}, or "
            "give the model embeddings for tokens that were added (resize_token_embeddings)"
        )


def _misfits_of_template(processor: Any) -> Iterator[str]:
    remedy = _COPY_TEMPLATE
    if processor.chat_template is None:
        yield _NO_TEMPLATE
        return
    for kind, mark in (("image", PADS[0]), ("video", PADS[1])):
        try:
            chat = _chat(processor, [{"type": kind}, {"type": "text", "text": _ASKED}])
        except _TEMPLATE_FAILS as error:
            yield f"its chat template fails on a question about {kind}s ({type(error).__name__}: {error}): {remedy}"
            return
        if chat.count(f"{START}{mark}{END}") != 1:
            yield f"its chat template does not show the model the {kind} of a question ({mark}): {remedy}"
        if _ASKED not in chat:
            yield f"its chat template leaves out the text of a question about {kind}s: {remedy}"


def _chat(processor: Any, content: list[dict[str, str]]) -> str:
    turns: Any = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(turns, add_generation_prompt=True))


def _opened(processor: Any) -> str:
    """A prompt, after its question, from the first tag on that it opens and does not close."""
    begun = _chat(processor, [{"type": "text", "text": _ASKED}]).rpartition(_ASKED)[2]
    places = [
        begun.rfind(tag)
        for tag in TAGS
        if not tag.startswith("</") and begun.rfind(tag) > begun.rfind(tag.replace("<", "</"))
    ]
    return begun[min(places) :] if places else ""


def _end_ids(settings: ModelSettings, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """All tokens that end a completion: those of the generation configuration, one or a list, and the tokenizer's."""
    from transformers import GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(settings.name_or_path, revision=settings.revision or "main")
    except OSError:  # there is none, or it cannot be read, which `spacer.config.model_files` has told of
        generation = GenerationConfig.from_model_config(config)
    said = generation.eos_token_id
    ends = said if isinstance(said, list) else [said]
    return tuple(sorted({int(end) for end in (*ends, tokenizer.eos_token_id) if end is not None}))


def check_loaded(settings: ModelSettings, model: Any, info: Any) -> None:
    """Holds loaded weights to the model: every tensor has come from the files, none was left over, all are numbers.

    `info` is what `from_pretrained` gives with `output_loading_info`. A tensor that stands in the files once and is
    used twice (tied embeddings) is there.

    Raises:
        UserError: that is not so; some tensors are named.
    """
    problems = []
    if missing := sorted(info["missing_keys"]):
        problems.append(f"{_some(missing)} {_are(missing)} missing, and would be random numbers")
    if unexpected := sorted(info["unexpected_keys"]):
        problems.append(f"{_some(unexpected)} {_are(unexpected)} in the files and unknown to the model")
    if other := sorted(
        f"{name} {tuple(found)}, not {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]
    ):
        problems.append(f"{_some(other)} {_are(other)} of another shape than config.json says")
    if problems:
        raise UserError(
            f"model.name_or_path={settings.name_or_path}: its weights are not those of the model that its config.json "
            f"describes: {'; '.join(problems)}. Take both from the same model, or name the tensors as transformers does"
        )
    broken = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    if broken:
        raise UserError(
            f"model.name_or_path={settings.name_or_path}: {_some(broken)} {'hold' if len(broken) > 1 else 'holds'} NaN "
            "or infinity: the training that wrote it failed; take an earlier checkpoint, or download the model again"
        )


def _some(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(list(names)[:_NAMED]) + more


def _are(names: Collection[str]) -> str:
    return "are" if len(names) > 1 else "is"
