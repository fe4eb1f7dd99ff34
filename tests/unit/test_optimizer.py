"""The optimisers, and what a checkpoint keeps of a module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from spacer.config.choices import OptimizerKind, Schedule
from spacer.config.settings import OptimizerSettings
from spacer.errors import UserError
from spacer.models.load import load_policy
from spacer.models.trainable import check_trained, decaying, without_frozen
from spacer.training.muon import hidden_matrices
from spacer.training.optimizer import allow_states, configure_optimizer
from tests.parity.conftest import composed
from tests.unit.configs import only_problem, problems


class Small(pl.LightningModule):
    """A tied, a frozen and a trained part."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(128, 128).requires_grad_(False)
        self.trained = nn.Linear(128, 128, bias=False)
        self.tied = nn.Linear(128, 128, bias=False)
        self.tied.weight = self.trained.weight
        self.register_buffer("counted", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.frozen(x).relu() + self.trained(x))


@pytest.fixture
def eager() -> Iterator[None]:
    """torchao's step as it is written, not compiled, which takes half a minute."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def test_a_linear_schedule_falls_evenly_to_nothing_after_the_warm_up() -> None:
    settings = OptimizerSettings(learning_rate=1e-2, warmup_steps=2, schedule=Schedule.linear)
    made = configure_optimizer(Small(), settings, 10)
    optimizer, scheduler, rates = made["optimizer"], made["lr_scheduler"]["scheduler"], []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"] / 1e-2)
        optimizer.step()
        scheduler.step()
    assert rates[2:] == pytest.approx([1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])
    assert rates[0] < rates[1] <= 1


def trained(kind: OptimizerKind, steps: int, file: Path | None = None) -> tuple[Small, list[float], dict]:
    """A module after `steps` steps, resumed from a file's optimiser state if given."""
    module = Small()
    made = configure_optimizer(module, OptimizerSettings(kind, 1e-2, schedule=Schedule.constant), None)
    optimizer, start = made["optimizer"], 0
    if file is not None:
        found = torch.load(file, weights_only=True)
        module.load_state_dict(found["module"])
        optimizer.load_state_dict(found["optimizer"])
        start = found["steps"]
    losses = []
    for step in range(start, steps):
        x = torch.randn(64, 128, generator=torch.Generator().manual_seed(step))
        loss = (module(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return module, losses, {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "steps": steps}


def test_eight_bits_train_as_thirty_two_do_and_go_on_from_a_file(eager: None, tmp_path: Path) -> None:
    _, exact, _ = trained(OptimizerKind.adamw, 30)
    whole, losses, state = trained(OptimizerKind.adamw_8bit, 30)
    assert losses == pytest.approx(exact, rel=0.05) and losses[-1] < 0.5 * losses[0]
    (moments,) = state["optimizer"]["state"].values()  # one trained parameter, which has two names
    bytes_held = sum(part.nbytes for name in ("exp_avg", "exp_avg_sq") for part in (moments[name].codes,))
    assert bytes_held == 2 * 128 * 128
    _, _, half = trained(OptimizerKind.adamw_8bit, 12)
    torch.save(half, tmp_path / "half.pt")
    allow_states(OptimizerKind.adamw_8bit)
    again, _, _ = trained(OptimizerKind.adamw_8bit, 30, tmp_path / "half.pt")
    assert torch.equal(again.trained.weight, whole.trained.weight)


def test_a_checkpoint_keeps_what_is_trained_and_says_what_it_lacks() -> None:
    module = Small()
    kept = without_frozen(module, module.state_dict())
    assert set(kept) == {"trained.weight", "tied.weight", "counted"}
    check_trained(module, kept)
    del kept["tied.weight"]
    with pytest.raises(UserError, match=r"lacks 1 of the parameters that are trained, such as tied\.weight"):
        check_trained(module, kept)


class Normed(pl.LightningModule):
    """What decays and what does not, under the names that models have for them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(8, 4)
        self.norm1 = nn.RMSNorm(4)
        self.ln_q = nn.LayerNorm(4)
        self.q_proj = nn.Linear(4, 4)
        self.lm_head = nn.Linear(4, 8, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


@pytest.mark.parametrize("kind", [OptimizerKind.adamw, OptimizerKind.adamw_8bit])
def test_weights_and_embeddings_decay_and_norms_and_biases_do_not(kind: OptimizerKind, eager: None) -> None:
    module = Normed()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    rate, decay = 0.1, 0.5
    settings = OptimizerSettings(kind, rate, weight_decay=decay, schedule=Schedule.constant)
    optimizer = configure_optimizer(module, settings, None)["optimizer"]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        decays = name in ("embed_tokens.weight", "q_proj.weight")
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - rate * decay if decays else 1), msg=name)


def test_a_model_of_the_field_is_parted_as_its_names_say() -> None:
    module = load_policy(composed("model.freeze_vision=false").model)
    weights, others = decaying(module)
    names = {id(p): name for name, p in module.named_parameters()}
    assert {names[id(p)] for p in others} == {name for name in names.values() if re.search(r"norm|ln_q|bias", name)}
    assert len(weights) + len(others) == len(names)


def test_eight_bits_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacer.config.rules.packages.find_spec", lambda name: None)
    told = only_problem(stage__optimizer__kind="adamw_8bit")
    assert "needs the package torchao" in told and "pip install -e '.[adamw8bit]'" in told


class Deep(pl.LightningModule):
    """Embeddings that are the output layer too, a vision tower with a convolution, a hidden layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(12, 8)
        self.visual = nn.Sequential(nn.Conv1d(3, 8, 1), nn.Flatten(), nn.Linear(8, 8))
        self.hidden = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def loss(self, step: int) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(step)
        ids, picture = torch.randint(12, (16,), generator=drawn), torch.randn(16, 3, 1, generator=drawn)
        logits = self.head(self.norm(self.hidden(self.embed(ids)) + self.visual(picture)))
        return nn.functional.cross_entropy(logits, (ids + 1) % 12)


MUON = OptimizerSettings(OptimizerKind.muon, 1e-3, muon_learning_rate=0.02, vision_scale=0.1, warmup_steps=4)


def test_muon_steps_hidden_matrices_and_adamw_all_else() -> None:
    """Against torch's two optimisers set up by hand, with the learning rates of a warm-up of four steps."""
    ours, other = Deep(), Deep()
    made = configure_optimizer(ours, MUON, 10, ours.visual.parameters())
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    matrices = [{"params": [other.hidden.weight]}, {"params": [other.visual[2].weight]}]
    rest = [
        {"params": [other.embed.weight]},
        {"params": [other.hidden.bias, other.norm.weight, other.norm.bias], "weight_decay": 0.0},
        {"params": [other.visual[0].weight]},
        {"params": [other.visual[0].bias, other.visual[2].bias], "weight_decay": 0.0},
    ]
    muon, adamw = torch.optim.Muon(matrices, weight_decay=0.01), torch.optim.AdamW(rest, weight_decay=0.01)
    for step in range(3):
        share = (step + 1) / 4
        for groups, rate in ((muon.param_groups, 0.02), (adamw.param_groups, 1e-3)):
            for place, group in enumerate(groups):
                group["lr"] = rate * share * (1 if place < len(groups) // 2 else 0.1)
        for module, steps in ((ours, [optimizer]), (other, [muon, adamw])):
            module.zero_grad()
            module.loss(step).backward()
            for one in steps:
                one.step()
        schedule.step()
    for (name, mine), theirs in zip(ours.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-7), name


def test_muon_goes_on_from_a_file_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    def run(steps: range, start: Path | None = None) -> tuple[Deep, dict]:
        module = Deep()
        made = configure_optimizer(module, MUON, 8, module.visual.parameters())
        optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
        if start is not None:
            found = torch.load(start, weights_only=True)
            module.load_state_dict(found["module"])
            optimizer.load_state_dict(found["optimizer"])
            schedule.load_state_dict(found["schedule"])
        for step in steps:
            optimizer.zero_grad()
            optimizer.step(lambda step=step: module.loss(step).backward())
            schedule.step()
        states = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        return module, states

    whole, _ = run(range(8))
    _, half = run(range(3))
    torch.save(half, tmp_path / "half.pt")
    again, _ = run(range(3, 8), tmp_path / "half.pt")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_what_is_no_hidden_matrix_of_the_embedded_model() -> None:
    model = load_policy(composed("model.freeze_vision=false").model)
    hidden = {id(weight) for weight in hidden_matrices(model)}
    other = {name for name, parameter in model.named_parameters() if id(parameter) not in hidden and parameter.ndim > 1}
    assert other == {"model.language_model.embed_tokens.weight", "model.visual.patch_embed.proj.weight"}


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_zero3"])
def test_muon_is_for_whole_matrices(strategy: str) -> None:
    told = problems(stage__optimizer__kind="muon", cluster__strategy=strategy)
    assert any("stage.optimizer.kind=muon takes its steps on whole matrices" in line for line in told), told
