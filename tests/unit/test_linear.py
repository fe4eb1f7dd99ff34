"""Products by oneDNN: as PyTorch's own, forward and backward, wherever a layer may be used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spacer.cpu import products as products
from spacer.cpu.products import Linear, linear, onednn_is_faster, use_faster_products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where it is."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)


def gradients(function: Callable[..., Tensor], inputs: list[Tensor | None]) -> list[Tensor | None]:
    """What it gives, and the gradient of each input that is to have one."""
    fresh = [None if x is None else x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    output = function(*fresh)
    if output.requires_grad:
        (output * torch.arange(output.numel()).reshape(output.shape).cos()).sum().backward()
    return [output.detach(), *(None if x is None else x.grad for x in fresh)]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (1, 300)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, True), (False, False)])
def test_equals_pytorchs_own(shape: tuple[int, ...], biased: bool, trained: tuple[bool, bool]) -> None:
    of_x, of_weight = trained
    x, weight = torch.randn(*shape, 24, requires_grad=of_x), torch.randn(10, 24, requires_grad=of_weight)
    inputs = [x, weight, torch.randn(10, requires_grad=of_weight) if biased else None]
    for found, expected in zip(gradients(linear, inputs), gradients(F.linear, inputs), strict=True):
        assert (found is None) == (expected is None)
        if expected is not None and found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_takes_what_does_not_lie_in_one_piece() -> None:
    x, weight = torch.randn(24, 9).T, torch.randn(24, 10).T
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)
    assert linear(torch.randn(0, 24), weight).shape == (0, 10)


def test_what_is_kept_for_the_backward_pass_is_what_it_needs() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x, weight = torch.randn(5, 24, requires_grad=True), torch.randn(10, 24)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        linear(x, weight)
    assert [t.data_ptr() for t in kept] == [weight.data_ptr()]  # frozen: its gradient needs no x


def test_other_precisions_are_pytorchs_own() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        x, weight = torch.randn(5, 24, dtype=dtype), torch.randn(10, 24, dtype=dtype)
        assert torch.equal(linear(x, weight), F.linear(x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(5, 24), torch.randn(10, 24)).dtype == torch.bfloat16


def test_layers_of_a_model_are_taken_over_with_their_names_and_tensors() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ModuleDict({"inner": nn.Linear(8, 2, bias=False)})).eval()
    before, state = copy.deepcopy(model), {name: value.data_ptr() for name, value in model.state_dict().items()}
    use_faster_products(model)
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == state
    layers = [part for part in model.modules() if isinstance(part, nn.Linear)]
    assert len(layers) == 2 and all(type(part) is Linear and not part.training for part in layers)
    x = torch.randn(3, 4)
    torch.testing.assert_close(model[0](x), before[0](x), rtol=1e-5, atol=1e-5)


def test_elsewhere_a_model_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    model = nn.Sequential(nn.Linear(4, 8))
    use_faster_products(model)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    ("capability", "maker", "expected"),
    [("AVX512", "AuthenticAMD", True), ("AVX2", "AuthenticAMD", False), ("AVX512", "GenuineIntel", False)],
)
def test_it_is_asked_for_on_amds_avx_512_alone(
    capability: str, maker: str, expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"vendor_id\t: {maker}\n")
    monkeypatch.setattr(products, "CPU_INFO", info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert onednn_is_faster.__wrapped__() is expected
