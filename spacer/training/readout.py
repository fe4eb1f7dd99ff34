"""Pretrains a vision tower with linear read-outs of what each merged token of a picture shows, discarded afterwards.

A randomly initialized language model of a few million parameters with a randomly initialized vision tower learns to
ignore the pictures, since the features are meaningless for a long time. With dense supervision, token by token, the
tower and its merger learn in minutes what is where; the language model then gets features worth attending to.

Shape suffixes: T merged tokens, H hidden, K categories, O pairs of a token and an object that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spacer.data.processing import PromptBatch
from spacer.data.scenes.scene import GRID
from spacer.data.scenes.views import View
from spacer.distributed import collectives
from spacer.models.forward import ComputeOptions
from spacer.models.unwrap import unwrap, vision_tower
from spacer.training.row_trainer import VisionGradient
from spacer.training.tree_module import Training, TreeModule

SHARE = 0.3  # a token shows an object if it contains this share of its box, or if the box fills this share of it
MOST = 3  # cap on the count of a category's centres in one token
RARITY = 30.0  # weight of positives: most tokens show no object of most categories
SMOOTHING = 0.95  # decay of the features' running moments


@dataclass(frozen=True)
class Labels:
    """What merged tokens show: `present_TK` the categories, `centres_TK` the number of object centres of each, and
    `floor_T2` the token centre's place on the floor. `token_O`, `category_O` and `cell_O2` describe each pair of an
    object and a token that shows it."""

    present_TK: Tensor
    centres_TK: Tensor
    floor_T2: Tensor
    token_O: Tensor
    category_O: Tensor
    cell_O2: Tensor


def label(view: View, categories: Sequence[str], rows: int, columns: int) -> Labels:
    """The labels of a picture of rows x columns merged tokens, row by row."""
    down, across = torch.arange(rows) / rows, torch.arange(columns) / columns
    left, top, right, bottom = view.floor
    floor_T2 = torch.cartesian_prod(
        top + (bottom - top) * (down + 0.5 / rows), left + (right - left) * (across + 0.5 / columns)
    ).flip(1)
    count = len(view.objects)
    box_N4 = torch.tensor([item.box for item in view.objects]).reshape(count, 4)
    category_N = torch.tensor([categories.index(item.category) for item in view.objects], dtype=torch.long)
    cell_N2 = torch.tensor([item.cell for item in view.objects], dtype=torch.long).reshape(count, 2)
    wide = _overlap(box_N4[:, 0], box_N4[:, 2], across, columns)
    high = _overlap(box_N4[:, 1], box_N4[:, 3], down, rows)
    shown_NT = (high[:, :, None] * wide[:, None, :]).flatten(1)
    area_N1 = ((box_N4[:, 2] - box_N4[:, 0]) * (box_N4[:, 3] - box_N4[:, 1]))[:, None]
    object_O, token_O = torch.nonzero(shown_NT > SHARE * area_N1.clamp_max(1 / (rows * columns)), as_tuple=True)
    present_TK = torch.zeros(rows * columns, len(categories))
    present_TK[token_O, category_N[object_O]] = 1
    centres_TK = torch.zeros(rows * columns, len(categories), dtype=torch.long)
    for item, category in zip(view.objects, category_N.tolist(), strict=True):
        x, y = item.centre
        if 0 <= x < 1 and 0 <= y < 1:
            centres_TK[int(y * rows) * columns + int(x * columns), category] += 1
    return Labels(present_TK, centres_TK.clamp_max(MOST), floor_T2, token_O, category_N[object_O], cell_N2[object_O])


def _overlap(low_N: Tensor, high_N: Tensor, starts: Tensor, parts: int) -> Tensor:
    """The overlap of each of `parts` equal intervals of [0, 1] with each [low, high], (N, parts)."""
    return (torch.minimum(high_N[:, None], starts + 1 / parts) - torch.maximum(low_N[:, None], starts)).clamp_min(0)


def join(labels: Sequence[Labels]) -> Labels:
    """Concatenates the labels of several pictures."""
    starts = torch.tensor([0, *(len(item.present_TK) for item in labels)]).cumsum(0)
    token_O = torch.cat([item.token_O + start for item, start in zip(labels, starts, strict=False)])
    names = ("present_TK", "centres_TK", "floor_T2", "category_O", "cell_O2")
    return Labels(token_O=token_O, **{name: torch.cat([getattr(item, name) for item in labels]) for name in names})


class ReadOut(nn.Module):
    """Linear read-outs of merged tokens: categories, counts of centres, cells per category, place on the floor."""

    def __init__(self, hidden: int, categories: int) -> None:
        super().__init__()
        self.present = nn.Linear(hidden, categories)
        self.centres = nn.Linear(hidden, categories * (MOST + 1))
        self.cells = nn.Linear(hidden, 2 * GRID)
        self.cells_of = nn.Linear(hidden, categories * 2 * GRID)
        self.floor = nn.Linear(hidden, 2)

    def forward(self, features_TH: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The losses, each summed over tokens, or for `cell` and `cell_of` over (object, token) pairs; and `off`, the
        mean error in cells per axis of the read-out for the object's category, without gradient."""
        tokens, categories = labels.present_TK.shape
        weight = features_TH.new_tensor(RARITY)
        shown_OH = features_TH[labels.token_O]
        cell = self.cells(shown_OH).view(-1, 2, GRID)
        of_all = self.cells_of(shown_OH).view(-1, categories, 2, GRID)
        cell_of = of_all[torch.arange(len(of_all), device=of_all.device), labels.category_O]
        off = (cell_of.detach().argmax(-1) - labels.cell_O2).abs().float()
        centres = self.centres(features_TH).view(tokens * categories, MOST + 1)
        return {
            "present": F.binary_cross_entropy_with_logits(
                self.present(features_TH), labels.present_TK, pos_weight=weight, reduction="none"
            )
            .mean(1)
            .sum(),
            "centres": F.cross_entropy(centres, labels.centres_TK.flatten(), reduction="sum") / categories,
            "floor": (self.floor(features_TH) - labels.floor_T2.clamp(-0.1, 1.1)).square().mean(1).sum(),
            "cell": F.cross_entropy(cell.flatten(0, 1), labels.cell_O2.flatten(), reduction="sum") / 2,
            "cell_of": F.cross_entropy(cell_of.flatten(0, 1), labels.cell_O2.flatten(), reduction="sum") / 2,
            "off": off.mean(1).sum(),
        }


# weights that bring the losses to one order of magnitude
WEIGHTS = {"present": 1.0, "centres": 2.0, "floor": 2.0, "cell": 0.5, "cell_of": 1.0}
PER_OBJECT = ("cell", "cell_of", "off")  # the others are means over tokens


class VisionModule(TreeModule):
    """Trains the vision tower and its merger with read-outs; the language model is frozen.

    `views` maps each picture's path to what it shows.
    """

    def __init__(self, policy: Any, compute: ComputeOptions, training: Training, views: Mapping[Path, View]) -> None:
        super().__init__(policy, compute, training)
        policy.requires_grad_(False)
        vision_tower(policy).requires_grad_(True)
        self._views = views
        self._categories = sorted({item.category for view in views.values() for item in view.objects})
        hidden = unwrap(policy).config.get_text_config().hidden_size
        self.read_out = ReadOut(hidden, len(self._categories))
        self.mean_H: Tensor
        self.square: Tensor
        self.register_buffer("mean_H", torch.zeros(hidden))
        self.register_buffer("square", torch.zeros(()))

    def trained(self) -> list[nn.Parameter]:
        """The parameters of the tower and of the read-outs."""
        return [*super().trained(), *self.read_out.parameters()]

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Trains on the losses of the batch's pictures, each picture once."""
        if not sum(self.gather(batch)):
            self.step(batch_idx)
            return
        paths = list(dict.fromkeys(sample.path for sample in batch.samples))
        grids = batch.pictures.image_grids
        labels = self._labels(paths, grids) if grids is not None else None
        counts = (0, 0) if labels is None else (len(labels.present_TK), len(labels.token_O))
        tokens, objects = (max(1, sum(collectives.gather(count, self.device))) for count in counts)
        if labels is not None:
            tower = VisionGradient(self.passes, batch.pictures)
            vision = tower.encode()
            assert vision.embeds_MH is not None
            losses = self.read_out(vision.embeds_MH.float(), labels)
            means = {name: loss / (objects if name in PER_OBJECT else tokens) for name, loss in losses.items()}
            loss = torch.stack([weight * means[name] for name, weight in WEIGHTS.items()]).sum()
            self.manual_backward(loss)
            if self.passes.in_trees.vision_again:
                tower.backward(vision, [_gradient(x) for x in vision.tensors])
            self._note(vision.embeds_MH.detach().float())
        else:  # all samples of this process are faulty
            self._note(self.mean_H.new_zeros(0, len(self.mean_H)))
            means = {name: torch.zeros((), device=self.device) for name in (*WEIGHTS, "off")}
        names = list(means)
        found = collectives.add(torch.stack([means[name].detach() for name in names]))
        self._gathered.divide_by(1.0)  # batches weigh the same: tokens and objects have their own denominators
        self._gathered.loss += float(sum(WEIGHTS.get(name, 0.0) * v for name, v in zip(names, found, strict=True)))
        total = self.step(batch_idx)
        if total is not None:
            for name, value in zip(names, found, strict=True):
                self.log(f"train/{name}", value, prog_bar=name == "off")
            self.log("train/loss", total, prog_bar=True)

    def _labels(self, paths: Sequence[Path], grids_N3: Tensor) -> Labels:
        merge = unwrap(self.policy).config.vision_config.spatial_merge_size
        made = [
            label(self._views[path], self._categories, height // merge, width // merge)
            for path, (_, height, width) in zip(paths, grids_N3.tolist(), strict=True)
        ]
        return _to(join(made), self.device)

    def _note(self, features_TH: Tensor) -> None:
        """Updates the running moments of the features, over all processes."""
        count = sum(collectives.gather(len(features_TH), self.device))
        sums = collectives.add(torch.cat([features_TH.sum(0), features_TH.square().mean(1).sum()[None]]))
        if not count:
            return
        moments = sums / count
        keep = SMOOTHING if bool(self.square) else 0.0
        self.mean_H.lerp_(moments[:-1], 1 - keep)
        self.square.lerp_(moments[-1], 1 - keep)

    @torch.no_grad()
    def scale_features(self, rms: float) -> None:
        """Rescales the merger's last layer so that features have mean 0 and a root mean square of `rms`.

        Features of an untrained tower are dominated by one large common vector, which hides their differences from the
        language model, and they are huge compared with text embeddings.

        Raises:
            ValueError: the merger does not end in a linear layer.
        """
        layers = [part for part in vision_tower(self.policy).merger.modules() if isinstance(part, nn.Linear)]
        if not layers or layers[-1].bias is None:
            raise ValueError("the vision tower's merger does not end in a linear layer with a bias")
        scale = rms / (self.square - self.mean_H.square().mean()).sqrt()
        layers[-1].bias.sub_(self.mean_H).mul_(scale)
        layers[-1].weight.mul_(scale)


def _gradient(features: Tensor) -> Tensor:
    return torch.zeros_like(features) if features.grad is None else features.grad


def _to(labels: Labels, device: torch.device) -> Labels:
    return Labels(**{name: value.to(device) for name, value in vars(labels).items()})
