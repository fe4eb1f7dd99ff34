"""What a model's folder says is read once, and a folder that is not whole is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from spacer.config.families import FAMILIES
from spacer.config.model_files import check_model
from spacer.config.settings import ModelSettings
from spacer.errors import UserError
from spacer.models.load import load_policy
from spacer.models.probe import ModelProbe, probe_model
from tests.model_folders import EMBEDDED, make_folder, make_processor

CONFIG = json.loads((EMBEDDED / "config.json").read_text())
END, START = (CONFIG["text_config"][f"{name}_token_id"] for name in ("eos", "bos"))
THINKING = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
PLAIN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded model."""
    made = tmp_path / "model"
    shutil.copytree(EMBEDDED, made)
    return made


def probed(folder: Path) -> ModelProbe:
    return probe_model(ModelSettings(str(folder)))


def write(path: Path, change: Callable[[Any], Any]) -> None:
    """A JSON file, changed."""
    values = json.loads(path.read_text())
    path.write_text(json.dumps(change(values) or values))


def set_template(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(change(path.read_text()))


# ---- what is read


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_known_by_its_folder(family: str, tmp_path: Path) -> None:
    found = probed(make_folder(tmp_path, family))
    assert found.family is FAMILIES[family]
    tokens = found.processor.tokenizer.convert_tokens_to_ids
    assert set(found.end_ids) == {tokens("<|im_end|>"), tokens("<|endoftext|>")}
    load_policy(ModelSettings(str(tmp_path)))


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        (END, {END}),
        ([END, START], {END, START}),
        ([START], {END, START}),  # the tokenizer's own is one of them whatever the file says
        (None, {END}),
    ],
)
def test_all_end_tokens_are_read(said: Any, ends: set[int], folder: Path) -> None:
    write(folder / "generation_config.json", lambda values: values | {"eos_token_id": said})
    assert set(probed(folder).end_ids) == ends


def test_without_a_generation_configuration_the_model_names_its_end(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    write(folder / "config.json", lambda values: values["text_config"].update(eos_token_id=START))
    assert set(probed(folder).end_ids) == {END, START}


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        (PLAIN, ""),
        (THINKING, "<think>\n"),
        (THINKING.replace("<think>\n", "<think>\n\n</think>\n\n"), ""),
        (THINKING.replace("<think>\n", "<think>\n\n</think>\n\n<answer>"), "<answer>"),
        (THINKING.replace("<think>\n", "<think><map>"), "<think><map>"),
        ("<|im_start|>assistant\n<think>", "<think>"),  # whether a generation prompt is asked for or not
    ],
)
def test_what_the_generation_prompt_opens(prompt: str, opens: str, folder: Path) -> None:
    set_template(folder, lambda text: text.replace(PLAIN, prompt))
    assert probed(folder).prompt_opens == opens


def test_tags_in_the_default_system_turn_open_nothing(folder: Path) -> None:
    set_template(folder, lambda text: "<|im_start|>system\nThink in <think> tags.<|im_end|>\n" + text)
    assert probed(folder).prompt_opens == ""


@pytest.mark.parametrize("tags", [("<think>", "</think>", "<answer>", "</answer>", "<map>", "</map>"), ("<answer>",)])
def test_tags_survive_decoding_where_they_are_special_tokens(tags: tuple[str, ...], folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tags), special_tokens=True)
    tokenizer.save_pretrained(folder)
    write(folder / "config.json", lambda values: values["text_config"].update(vocab_size=1024))
    found = probed(folder)
    text = "<think><map>{}</map>so</think><answer>B</answer>"
    ids = torch.tensor(tokenizer(f"{text}<|im_end|>")["input_ids"])
    assert set(tokenizer.convert_tokens_to_ids(list(tags))) <= set(ids.tolist())
    assert tokenizer.decode(ids, skip_special_tokens=True) != text
    assert found.decode(ids) == text


# ---- folders that are not whole


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.up.weight"] = tensors.pop(STORED)


def spoil(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[STORED].view(-1)[7] = value

    return change


def fail(path: Path) -> None:
    """Puts a file there that opens, and of which nothing can be read."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def point(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def add_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra {number}>" for number in range(2000)])
    tokenizer.save_pretrained(folder)


def other_processor(folder: Path) -> None:
    make_processor("qwen3_vl").save_pretrained(folder)


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def process(part: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder / "processor_config.json", lambda values: values[part].update(changes))


STORED = "model.layers.0.mlp.up_proj.weight"  # as published models name it
NAME = "model.language_model.layers.0.mlp.up_proj.weight"
BROKEN: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a missing tensor": (lambda f: weights(f, lambda t: t.pop(STORED)), (NAME, "is missing", "Take both")),
    "a renamed tensor": (lambda f: weights(f, rename), (NAME, "is missing", "mlp.up.weight is in the files")),
    "a tensor too many": (
        lambda f: weights(f, lambda t: t.update({"value_head.weight": torch.ones(3)})),
        ("value_head.weight is in the files and unknown to the model",),
    ),
    "a tensor of another shape": (
        lambda f: weights(f, lambda t: t.update({STORED: torch.ones(5, 192)})),
        (NAME, "(5, 192), not (512, 192)", "of another shape than config.json says"),
    ),
    "other sizes in config.json": (
        lambda f: write(f / "config.json", lambda c: c["text_config"].update(intermediate_size=256)),
        ("of another shape than config.json says", "and 11 more"),
    ),
    "NaN": (lambda f: weights(f, spoil(float("nan"))), (NAME, "holds NaN or infinity", "an earlier checkpoint")),
    "infinity": (lambda f: weights(f, spoil(float("-inf"))), (NAME, "holds NaN or infinity")),
    "weights cut short": (lambda f: cut(f / "model.safetensors"), ("model.safetensors is cut short", "download")),
    "weights on a disk that fails": (
        lambda f: fail(f / "model.safetensors"),
        ("its model.safetensors cannot be read: ", "the disk failed"),
    ),
    "a tokenizer on a disk that fails": (
        lambda f: fail(f / "tokenizer.json"),
        ("its tokenizer.json cannot be read: ", "the disk failed"),
    ),
    "weights cut in the header": (lambda f: cut(f / "model.safetensors", 1e-6), ("is cut short or damaged",)),
    "weights left with Git LFS": (lambda f: point(f / "model.safetensors"), ("git lfs pull",)),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), ("it has no tokenizer.json", "copy")),
    "a tokenizer cut short": (lambda f: cut(f / "tokenizer.json"), ("its tokenizer.json cannot be read", "copy")),
    "a tokenizer left with Git LFS": (lambda f: point(f / "tokenizer.json"), ("git lfs pull",)),
    "a tokenizer that is another JSON": (
        lambda f: (f / "tokenizer.json").write_text('{"version": "1.0"}'),
        ("its tokenizer or processor cannot be loaded", "copy the folder again"),
    ),
    "tokens without embeddings": (add_tokens, ("embeddings for 1024", "resize_token_embeddings")),
    "another token for pictures": (
        lambda f: write(f / "config.json", lambda c: c | {"image_token_id": 3}),
        (f"has token {CONFIG['image_token_id']} for <|image_pad|>, and its config.json 3",),
    ),
    "no chat template": (without_template, ("it has no chat template", "chat_template.jinja")),
    "a template for text alone": (
        lambda f: set_template(f, lambda text: text.replace("<|video_pad|>", "")),
        ("does not show the model the video of a question", "chat_template.jinja"),
    ),
    "a template without the question": (
        lambda f: set_template(f, lambda text: text.replace("{{ part['text'] }}", "")),
        ("leaves out the text of a question",),
    ),
    "a template that raises": (
        lambda f: set_template(f, lambda text: "{{ raise_exception('no pictures') }}"),
        ("its chat template fails on a question about images", "no pictures"),
    ),
    "a template that is none": (
        lambda f: set_template(f, lambda text: text + "{% if %}"),
        ("its chat template fails on a question about images",),
    ),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), ("how pictures are shown to it", "copy")),
    "another family's processor": (other_processor, ("is of Qwen2.5-VL and its processor a Qwen3VLProcessor",)),
    "other patches": (process("image_processor", patch_size=16), ("image_processor has patch_size=16",)),
    "other pairs of frames": (
        process("video_processor", temporal_patch_size=4),
        ("video_processor has temporal_patch_size=4",),
    ),
    "an unknown model": (
        lambda f: write(f / "config.json", lambda c: c | {"model_type": "mystery"}),
        ("names a model of type mystery", "Qwen3-VL (qwen3_vl)"),
    ),
    "a model without pictures": (
        lambda f: write(f / "config.json", lambda c: c | {"model_type": "llama"}),
        ("names a model of type llama", "supported family"),
    ),
    "a model of no type": (
        lambda f: (f / "config.json").write_text("{}"),
        ("its config.json names no type of model",),
    ),
    "a config.json that is none": (lambda f: cut(f / "config.json"), ("its config.json cannot be read", "copy")),
    "a config.json that is a list": (lambda f: (f / "config.json").write_text("[]"), ("it holds no object",)),
    "a generation_config.json that is none": (
        lambda f: cut(f / "generation_config.json"),
        ("its generation_config.json cannot be read",),
    ),
    "sliding windows": (
        lambda f: write(
            f / "config.json",
            lambda c: c["text_config"].update(
                layer_types=["full_attention"] * 4 + ["sliding_attention"], use_sliding_window=True, sliding_window=8
            ),
        ),
        ("prefix trees need full attention in each", "set use_sliding_window to false"),
    ),
    "adapters": (
        lambda f: ((f / "adapter_config.json").write_text("{}"), (f / "config.json").unlink()),
        ("adapters for another model", "merge_and_unload"),
    ),
    "adapters beside a model": (
        lambda f: (f / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}'),
        ("adapters for another model",),
    ),
    "no end": (
        lambda f: (
            write(f / "generation_config.json", lambda c: c | {"eos_token_id": None}),
            write(f / "tokenizer_config.json", lambda c: c | {"eos_token": None}),
        ),
        ("a token that ends completions",),
    ),
}


def load(folder: Path) -> None:
    """As a run does."""
    settings = ModelSettings(str(folder))
    check_model(settings)
    probe_model(settings)
    load_policy(settings)


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_not_whole_is_refused(name: str, folder: Path) -> None:
    spoiled, words = BROKEN[name]
    spoiled(folder)
    with pytest.raises(UserError) as caught:
        load(folder)
    said = str(caught.value)
    assert f"model.name_or_path={folder}" in said
    for word in words:
        assert word in said


def test_a_whole_folder_loads(folder: Path) -> None:
    load(folder)
    weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING].clone()}))
    load(folder)  # a tied weight may stand there under both of its names


EMBEDDING = "model.embed_tokens.weight"
