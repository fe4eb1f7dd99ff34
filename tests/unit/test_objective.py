"""`spacer.objective` against loops over single tokens, written from the papers' formulas, in float64."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from spacer.config.choices import Advantage, LossMean, Ratio, Surrogate
from spacer.config.settings import ObjectiveSettings
from spacer.models.token_logps import token_logps
from spacer.objective.advantages import group_advantages, zero_variance
from spacer.objective.loss import PolicyBatch, kept_completions, loss_denominator, policy_loss
from spacer.rollout.endings import completion_mask, truncated

CONF = Path(__file__).parents[2] / "conf"
VARIANTS = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
EOS = 0
N, G, C, V = 3, 4, 6, 7
BUDGET = 9  # max_completion_length; not C, so that the two cannot be mixed up


@functools.cache
def compose_objective(name: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = [f"+model.completion.max_tokens={BUDGET}", "+model.prompts_per_rollout=1", "+model.row_tokens=1000"]
        config = compose(overrides=[f"+objective={name}", *model])
    assert isinstance(config.objective, DictConfig)
    return config.objective


def shipped(name: str, **changes: Any) -> ObjectiveSettings:
    """The settings of a shipped YAML, typed as the program types them."""
    config = compose_objective(name)
    values: Any = OmegaConf.to_container(config, resolve=True)
    return ObjectiveSettings(**values | changes)


# ---- the shipped configurations


def test_the_variants_ship() -> None:
    assert set(VARIANTS) == {"grpo", "dr_grpo", "dapo", "gspo", "ppo_clip", "cispo", "sapo"}


@pytest.mark.parametrize("name", VARIANTS)
def test_yaml_states_every_field(name: str) -> None:
    config = compose_objective(name)
    assert set(config) == {field.name for field in dataclasses.fields(ObjectiveSettings)}
    assert config.max_completion_length == BUDGET


def test_yaml_holds_the_papers_values() -> None:
    base = ObjectiveSettings(max_completion_length=BUDGET, row_tokens=1000)  # the two are the model's
    assert shipped("grpo") == base
    assert shipped("dr_grpo") == dataclasses.replace(
        base, advantage=Advantage.mean, loss_mean=LossMean.budget, beta=0.0
    )
    assert shipped("dapo") == dataclasses.replace(
        base,
        loss_mean=LossMean.token,
        clip_low=0.2,
        clip_high=0.28,
        drop_zero_variance=True,
        mask_truncated=True,
        beta=0.0,
    )
    assert shipped("gspo") == dataclasses.replace(
        base, ratio=Ratio.sequence, clip_low=3e-4, clip_high=4e-4, beta=0.0, updates_per_rollout=4
    )
    assert shipped("cispo") == dataclasses.replace(
        base, surrogate=Surrogate.cispo, loss_mean=LossMean.token, clip_high=4.0, beta=0.0, updates_per_rollout=2
    )
    assert shipped("sapo") == dataclasses.replace(base, surrogate=Surrogate.sapo, beta=0.0, updates_per_rollout=2)
    assert shipped("ppo_clip") == dataclasses.replace(base, clip_low=0.2, clip_high=0.2, updates_per_rollout=2)


# ---- the loss against loops


@dataclasses.dataclass(frozen=True)
class Toy:
    logits_BCV: Tensor
    ids_BC: Tensor
    rewards_NG: Tensor
    old_logp_BC: Tensor | None
    ref_logp_BC: Tensor

    def batch(self, settings: ObjectiveSettings, rows: slice = slice(None)) -> PolicyBatch:
        """What a trainer builds: advantages over whole groups, the rest of the given completions."""
        advantages_NG = group_advantages(self.rewards_NG, kind=settings.advantage, eps=settings.advantage_eps)
        return PolicyBatch(
            logp_BC=token_logps(self.logits_BCV[rows], self.ids_BC[rows]),
            advantages_B=advantages_NG.flatten()[rows],
            mask_BC=completion_mask(self.ids_BC, [EOS])[rows],
            old_logp_BC=None if self.old_logp_BC is None else self.old_logp_BC[rows],
            ref_logp_BC=self.ref_logp_BC[rows] if settings.beta else None,
            truncated_B=truncated(self.ids_BC, [EOS])[rows],
            zero_variance_B=zero_variance(self.rewards_NG)[rows],
        )


def toy(ends: str = "mixed", drift: float | None = None) -> Toy:
    """Random logits and tokens. `ends`: where completions end; `drift`: how far the policy has moved since sampling."""
    generator = torch.Generator().manual_seed(0)
    logits_BCV = torch.randn(N * G, C, V, generator=generator, dtype=torch.float64)
    ids_BC = torch.randint(1, V, (N * G, C), generator=generator)
    end_at = {"mixed": [0, 3, C, 5, 1, 2, C, 4, 2, 2, 5, C], "early": [0, 1] * 6, "never": [C] * 12}[ends]
    for b, end in enumerate(end_at):
        ids_BC[b, end:] = EOS  # the first ends the completion, the others are padding
    noise_BC = torch.randn(N * G, C, generator=generator, dtype=torch.float64)
    logp_BC = torch.log_softmax(logits_BCV, -1).gather(-1, ids_BC[..., None])[..., 0]
    ref_logp_BC = logp_BC + noise_BC.flip(0)
    ref_logp_BC[1, 0] += 30  # beyond the clamp on either side
    ref_logp_BC[3, 0] -= 30
    return Toy(
        logits_BCV=logits_BCV.requires_grad_(),
        ids_BC=ids_BC,
        rewards_NG=torch.tensor([[2.0, 0.0, 1.0, 1.0], [0.3] * 4, [0.0, 0.0, 0.0, 1.4]], dtype=torch.float64),
        old_logp_BC=None if drift is None else logp_BC - drift * noise_BC,
        ref_logp_BC=ref_logp_BC,
    )


def loop_loss(t: Toy, s: ObjectiveSettings) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics one token at a time; shares no code with spacer.objective."""
    names = ("ratio_mean", "clip_fraction", "clip_low_fraction", "clip_high_fraction", "kl", "completion_length_mean")
    logs: dict[str, list[float]] = {name: [] for name in names}
    token_losses: list[list[Tensor]] = []  # of each completion that counts
    dropped = 0
    for n, rewards in enumerate(t.rewards_NG.tolist()):
        mean = sum(rewards) / G
        std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (G - 1))
        for g, reward in enumerate(rewards):
            b = n * G + g
            advantage = (reward - mean) / (std + s.advantage_eps) if s.advantage == "std" else reward - mean
            ids = t.ids_BC[b].tolist()
            ended = EOS in ids
            ids = ids[: ids.index(EOS) + 1] if ended else ids

            logps = [t.logits_BCV[b, c, i] - t.logits_BCV[b, c].exp().sum().log() for c, i in enumerate(ids)]
            olds = [p.item() for p in logps] if t.old_logp_BC is None else t.old_logp_BC[b].tolist()
            ratios = [torch.exp(p - olds[c]) for c, p in enumerate(logps)]
            if s.ratio == "sequence":  # the geometric mean, GSPO's definition
                whole = torch.stack(ratios).prod() ** (1 / len(ratios))
                ratios = [whole] * len(ratios)
            losses, lows, highs, kls = [], [], [], []
            for c, ratio in enumerate(ratios):
                gain = ratio * advantage
                above = s.clip_high is not None and ratio.item() > 1 + s.clip_high
                below = s.clip_low is not None and ratio.item() < 1 - s.clip_low
                clipped = (above and advantage > 1e-9) or (below and advantage < -1e-9)
                if s.surrogate == "cispo":
                    clipped = above or below
                    weight = 1 + s.clip_high if above else 1 - s.clip_low if below else ratio.item()
                    gain = weight * advantage * logps[c]
                elif s.surrogate == "sapo":
                    clipped = False
                    tau = s.sapo_tau_positive if advantage > 1e-9 else s.sapo_tau_negative
                    gain = 4 / tau / (1 + torch.exp(-tau * (ratio - 1))) * advantage
                elif clipped:  # no gradient: the policy has moved far enough in the good direction
                    bound = 1 + s.clip_high if above else 1 - s.clip_low  # type: ignore[operator]
                    gain = torch.tensor(bound * advantage, dtype=torch.float64)
                lows.append(float(clipped and below))
                highs.append(float(clipped and above))
                if s.beta:
                    d = t.ref_logp_BC[b, c] - logps[c]
                    if abs(d.item()) > s.kl_clamp:
                        d = torch.tensor(math.copysign(s.kl_clamp, d.item()), dtype=torch.float64)
                    kl = {"k1": -d, "k2": d * d / 2, "k3": torch.exp(d) - d - 1}[s.kl]
                    kls.append(kl.item())
                    gain = gain - s.beta * kl
                losses.append(-gain)
            logs["ratio_mean"].append(sum(ratio.item() for ratio in ratios) / len(ids))
            logs["clip_low_fraction"].append(sum(lows) / len(ids))
            logs["clip_high_fraction"].append(sum(highs) / len(ids))
            logs["clip_fraction"].append(sum(lows + highs) / len(ids))
            logs["kl"] += [sum(kls) / len(ids)] if s.beta else []
            logs["completion_length_mean"].append(len(ids))
            if (s.drop_zero_variance and len(set(rewards)) == 1) or (s.mask_truncated and not ended):
                dropped += 1
                continue
            token_losses.append(losses)

    total = 0.0 * t.logits_BCV.sum()
    for losses in token_losses:
        for loss in losses:
            if s.loss_mean == "completion":
                total = total + loss / len(losses) / len(token_losses)
            elif s.loss_mean == "token":
                total = total + loss / sum(map(len, token_losses))
            else:
                total = total + loss / s.max_completion_length / len(token_losses)
    metrics = {name: sum(values) / len(values) for name, values in logs.items() if values}
    return total, metrics | {"kept_share": 1 - dropped / (N * G)}


def gradient(loss: Tensor, t: Toy) -> Tensor:
    return torch.autograd.grad(loss, t.logits_BCV)[0]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)


CHANGES = {
    "as shipped": {},
    "drop zero variance": {"drop_zero_variance": True, "mask_truncated": False},
    "mask truncated": {"drop_zero_variance": False, "mask_truncated": True},
    "drop both": {"drop_zero_variance": True, "mask_truncated": True},
}


@pytest.mark.parametrize("drift", [None, 1e-3, 0.3], ids=["on-policy", "near", "far"])
@pytest.mark.parametrize("ends", ["mixed", "early", "never"])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_gradient_and_metrics_equal_the_loops(
    name: str, changes: dict[str, bool], ends: str, drift: float | None
) -> None:
    t, settings = toy(ends, drift), shipped(name, **changes)
    result = policy_loss(t.batch(settings), settings)
    expected, metrics = loop_loss(t, settings)
    close(result.loss, expected)
    close(gradient(result.loss, t), gradient(expected, t))
    got = {key: float(value) for key, value in result.metrics.items()}
    assert got.pop("truncated_share") == pytest.approx({"mixed": 3, "early": 0, "never": 12}[ends] / 12)
    assert got == pytest.approx(metrics, rel=1e-6)  # counts are float32
    assert not any(value.requires_grad for value in result.metrics.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_low": 0.1},
        {"clip_high": 0.1},
        {"ratio": "sequence", "clip_low": 0.05, "clip_high": 0.1, "loss_mean": "token"},
        {"surrogate": "cispo", "clip_low": 0.1, "clip_high": 0.2, "beta": 0.1, "kl": "k1"},
        {"surrogate": "sapo", "ratio": "sequence", "sapo_tau_positive": 3.0, "sapo_tau_negative": 0.5, "kl": "k2"},
        {"kl": "k1"},
        {"kl": "k2", "kl_clamp": 0.5},
        {"ratio": "sequence", "loss_mean": "budget", "beta": 0.1, "advantage": "mean", "kl_clamp": 0.5},
    ],
    ids=str,
)
def test_unshipped_combinations_equal_the_loops(changes: dict[str, Any]) -> None:
    t, settings = toy(drift=0.3), shipped("grpo", **changes)
    result, (expected, _) = policy_loss(t.batch(settings), settings), loop_loss(t, settings)
    close(result.loss, expected)
    close(gradient(result.loss, t), gradient(expected, t))


@pytest.mark.parametrize(("name", "drift"), [("ppo_clip", 0.3), ("dapo", 0.3), ("gspo", 1e-3)])
def test_the_toy_reaches_the_clip_bounds(name: str, drift: float) -> None:
    """Guards the tests above: some ratios are clipped and some are not."""
    settings = shipped(name)
    assert 0.05 < policy_loss(toy(drift=drift).batch(settings), settings).metrics["clip_fraction"] < 0.95


@pytest.mark.parametrize("ends", ["mixed", "never"])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("name", VARIANTS)
def test_micro_batches_give_the_gradient_of_the_batch(name: str, changes: dict[str, bool], ends: str) -> None:
    t, settings = toy(ends, 0.1), shipped(name, **changes)
    whole = t.batch(settings)
    keep_B = kept_completions(
        whole.mask_BC, settings, truncated_B=whole.truncated_B, zero_variance_B=whole.zero_variance_B
    )
    denominator = loss_denominator(whole.mask_BC, keep_B, settings)
    parts = [slice(0, 1), slice(1, 6), slice(6, 12)]  # across groups, and one whose completions may all be dropped
    expected = gradient(policy_loss(whole, settings).loss, t)
    losses = [policy_loss(t.batch(settings, rows), settings, denominator).loss for rows in parts]
    close(gradient(torch.stack(losses).sum(), t), expected)

    # Ranks of DDP: gradients are averaged, and so must the denominators be.
    losses = [policy_loss(t.batch(settings, rows), settings, denominator.double() / len(parts)).loss for rows in parts]
    close(gradient(torch.stack(losses).mean(), t), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_kept_is_a_zero_with_a_graph(name: str) -> None:
    t, settings = toy("never"), shipped(name, mask_truncated=True)
    result = policy_loss(t.batch(settings), settings)
    assert result.loss.item() == 0 and result.metrics["kept_share"] == 0
    assert gradient(result.loss, t).eq(0).all()

    no_tokens = dataclasses.replace(t.batch(settings), mask_BC=torch.zeros(N * G, C, dtype=torch.bool))
    result = policy_loss(no_tokens, settings)
    assert result.loss.item() == 0 and all(value.isfinite() for value in result.metrics.values())
    assert gradient(result.loss, t).eq(0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_never_counts(name: str) -> None:
    """Neither what stands in padded tokens, even -inf, nor a row of padding changes anything."""
    settings = shipped(name)
    batch = toy(drift=0.1).batch(settings)
    logp_BC = batch.logp_BC.detach().requires_grad_()
    expected = policy_loss(dataclasses.replace(batch, logp_BC=logp_BC), settings)
    (expected_grad_BC,) = torch.autograd.grad(expected.loss, logp_BC)

    def padded(tensor: Tensor | None, fill: float) -> Tensor | None:
        if tensor is None:
            return None
        if tensor.shape == batch.mask_BC.shape and tensor.is_floating_point():
            tensor = tensor.masked_fill(~batch.mask_BC, fill)
        return torch.cat([tensor, torch.full_like(tensor[:1], 0 if tensor.dtype == torch.bool else fill)])

    fields = {key: padded(value, -math.inf) for key, value in vars(batch).items() if key != "logp_BC"}
    fields["advantages_B"] = torch.cat([batch.advantages_B, torch.ones(1, dtype=torch.float64)])
    logp_more_BC = padded(logp_BC.detach(), -math.inf)
    assert logp_more_BC is not None
    logp_more_BC.requires_grad_()
    result = policy_loss(PolicyBatch(logp_BC=logp_more_BC, **fields), settings)  # type: ignore[arg-type]
    (grad_BC,) = torch.autograd.grad(result.loss, logp_more_BC)
    close(result.loss, expected.loss)
    close(grad_BC[:-1], expected_grad_BC)
    assert grad_BC[-1].eq(0).all()
    for key, value in expected.metrics.items():
        torch.testing.assert_close(result.metrics[key], value)


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    """Without KL: the gradient of the mean over completions, then tokens, of A log p."""
    t, settings = toy(), shipped("grpo", beta=0.0)
    batch = t.batch(settings)
    surrogate = torch.stack(
        [-a * p[m].mean() for a, p, m in zip(batch.advantages_B, batch.logp_BC, batch.mask_BC, strict=True)]
    ).mean()
    result = policy_loss(batch, settings)
    assert result.metrics["ratio_mean"] == 1 and "kl" not in result.metrics
    same = policy_loss(dataclasses.replace(batch, old_logp_BC=batch.logp_BC), settings)  # by mistake not detached
    expected_BCV = torch.autograd.grad(surrogate, t.logits_BCV, retain_graph=True)[0]
    close(torch.autograd.grad(result.loss, t.logits_BCV, retain_graph=True)[0], expected_BCV)
    close(gradient(same.loss, t), expected_BCV)


@pytest.mark.parametrize(
    ("changes", "missing", "message"),
    [
        ({"beta": 0.04}, "ref_logp_BC", "beta = 0.04 needs ref_logp_BC"),
        ({"mask_truncated": True}, "truncated_B", "mask_truncated needs truncated_B"),
        ({"drop_zero_variance": True}, "zero_variance_B", "drop_zero_variance needs zero_variance_B"),
    ],
)
def test_a_setting_without_its_tensor_is_refused(changes: dict[str, Any], missing: str, message: str) -> None:
    settings = shipped("grpo", **changes)
    batch = toy().batch(settings)
    batch = PolicyBatch(**(vars(batch) | {missing: None}))
    with pytest.raises(ValueError, match=message):
        policy_loss(batch, settings)


@pytest.mark.parametrize("field", ["ratio", "loss_mean"])
def test_an_unknown_choice_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="both"):
        shipped("grpo", **{field: "both"})
