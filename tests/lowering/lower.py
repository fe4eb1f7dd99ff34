"""Dynamo, Inductor, Triton and ptxas on FlexAttention over a packed row, for an H100 that is not there.

    python -m tests.lowering.lower [gradient]

Prints one line of JSON: for each kernel its name, the bytes of shared memory of a block, and what a thread has of
registers and of stack in bytes. It needs CUDA's libraries to be stood in for (`runtime.c`, `driver.c`; see
`test_lowering`), and reaches into PyTorch's private parts, since there is no public way to lower for a device that is
absent: versions are in the output.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._dynamo.device_interface
import torch._inductor.config
import torch._inductor.fx_passes.fuse_attention
import torch._inductor.fx_passes.joint_graph
import torch._inductor.fx_passes.post_grad
import torch._inductor.graph
import torch._inductor.runtime.triton_heuristics
import torch._subclasses.fake_tensor
import torch.cuda.graphs
import torch.utils._triton
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.flex_attention import BlockMask
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime import driver

from spacer.attention import flex
from spacer.tree.forest import Completion, Forest, Segment
from spacer.tree.packing import PackedRow, pack, sees

HEADS, KEY_HEADS, CHANNELS = 28, 4, 128  # of the 7B
H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=80 << 30,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 << 20,
    gcnArchName="",
)
_KERNEL = r"async_compile\.triton\('(triton_tem\w+)', '''(.*?)''', device_str"
TARGET = GPUTarget("cuda", 90, 32)


class Lowered(Exception):
    """Raised where compiled code would be run."""


def row() -> PackedRow:
    """Two questions about a video and completions of each."""
    lengths, parents = (2000, 40, 50), (None, 0, 0)
    segments = []
    for length, parent in zip(lengths, parents, strict=True):
        ids = torch.zeros(length, dtype=torch.long)
        segments.append(Segment(ids, ids.expand(3, -1), ids - 1, parent))
    completions = [Completion(n % 2, torch.zeros(600 + 9 * n, dtype=torch.long)) for n in range(8)]
    (packed,) = pack(Forest(tuple(segments), (1, 2)), completions, 10_000)
    return packed


def _set(owner: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


def pretend() -> None:
    """Has PyTorch and Triton take this machine for one with an H100."""
    _set(
        torch.cuda,
        is_available=lambda: True,
        get_device_properties=lambda *_, **__: H100,
        get_device_capability=lambda *_, **__: (9, 0),
        current_device=lambda: 0,
        device_count=lambda: 1,
        is_bf16_supported=lambda *_, **__: True,
        get_arch_list=lambda: ["sm_90"],
        synchronize=lambda *_, **__: None,
        is_initialized=lambda: True,
        is_current_stream_capturing=lambda: False,
        get_rng_state=lambda *_, **__: torch.zeros(16, dtype=torch.uint8),
        set_rng_state=lambda *_, **__: None,
        _lazy_init=lambda: None,
    )
    _set(torch.cuda.random, get_rng_state=torch.cuda.get_rng_state, set_rng_state=torch.cuda.set_rng_state)
    _set(torch.cuda.graphs, is_current_stream_capturing=lambda: False, _cuda_isCurrentStreamCapturing=lambda: False)
    for name, value in {"getDevice": 0, "getDeviceCount": 1, "getCurrentRawStream": 0, "exchangeDevice": 0}.items():
        setattr(torch._C, f"_cuda_{name}", lambda *_, value=value: value)
    _set(torch._C, _cuda_setDevice=lambda _: None, _cuda_synchronize=lambda: None)
    _set(torch._C, _cuda_maybeExchangeDevice=lambda _: 0, _cuda_isCurrentStreamCapturing=lambda: False)
    interface: Any = torch._dynamo.device_interface.CudaInterface
    answers = {
        "is_available": True,
        "current_device": 0,
        "device_count": 1,
        "get_compute_capability": 90,
        "get_device_properties": H100,
        "get_raw_stream": 0,
        "is_bf16_supported": True,
        "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
        "set_device": None,
        "maybe_exchange_device": 0,
        "exchange_device": 0,
        "synchronize": None,
    }
    for name, answer in answers.items():
        setattr(interface, name, staticmethod(lambda *_, answer=answer, **__: answer))
    _set(interface.Worker, current_device=staticmethod(lambda: 0))
    _set(interface.Worker, get_device_properties=staticmethod(lambda *_, **__: H100))
    _set(torch._subclasses.fake_tensor, init_gpu_context=lambda *_, **__: None)
    _set(torch.accelerator, is_available=lambda: False)
    _set(torch.utils._triton, has_triton=lambda *_, **__: True)
    # these look for patterns by running examples on the device
    _set(torch._inductor.fx_passes.fuse_attention, _sfdp_init=lambda *_, **__: None)
    _set(torch._inductor.fx_passes.joint_graph, lazy_init=lambda *_, **__: None)
    _set(torch._inductor.fx_passes.post_grad, lazy_init=lambda *_, **__: None)
    _set(torch._inductor.config, fx_graph_cache=False, compile_threads=1)
    torch._functorch.config.enable_autograd_cache = False
    standing_in = SimpleNamespace(
        get_current_target=lambda: TARGET,
        get_current_device=lambda: 0,
        get_current_stream=lambda *_: 0,
        get_device_interface=lambda: torch.cuda,
        get_active_torch_device=lambda: torch.device("cuda"),
        map_python_to_cpp_type=lambda kind: kind,
        launcher_cls=None,
    )
    driver.set_active(standing_in)


def lowered(packed: PackedRow, gradient: bool) -> list[str]:
    """The code that Inductor writes, one for each graph."""
    codes: list[str] = []

    def write(self: Any) -> Any:
        code, _ = self.codegen()
        codes.append(getattr(code, "value", code))

        def call(_: Any) -> None:
            raise Lowered

        return SimpleNamespace(call=call, __file__="lowered", __name__="lowered")

    _set(torch._inductor.graph.GraphLowering, compile_to_module=write, _compile_to_module=write)
    on_cpu = flex.FlexAttention(packed, torch.device("cpu"))._mask
    with FakeTensorMode(), torch.set_grad_enabled(gradient):
        below_L = torch.empty(len(packed), dtype=torch.long, device="cuda")

        def seen(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return sees(below_L, query, key)

        def moved(value: Any) -> Any:
            return torch.empty(value.shape, dtype=value.dtype, device="cuda") if torch.is_tensor(value) else value

        names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
        names += ("q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")
        held = {name: moved(getattr(on_cpu, name)) for name in names}
        mask = BlockMask(on_cpu.seq_lengths, **held, BLOCK_SIZE=on_cpu.BLOCK_SIZE, mask_mod=seen)
        q, k, v = (
            torch.empty(1, len(packed), heads, CHANNELS, dtype=torch.bfloat16, device="cuda", requires_grad=gradient)
            for heads in (HEADS, KEY_HEADS, KEY_HEADS)
        )
        try:
            flex.compiled()(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask, scale=0.09, enable_gqa=True)
        except Lowered:
            return codes
    raise AssertionError("nothing was compiled")


def compiled_kernels(codes: list[str], folder: Path) -> list[dict[str, Any]]:
    """ptxas on every FlexAttention kernel in the code; the small reductions beside them are left out."""
    found, held = [], dict[str, Any]()

    def keep(**given: Any) -> Any:
        held.update(given)
        return lambda function: held.setdefault("function", function)

    torch._inductor.runtime.triton_heuristics.template = keep
    for name, text in re.findall(_KERNEL, "\n".join(codes), re.S):
        held.clear()
        file = folder / f"{name}.py"
        file.write_text(text)
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        meta, options = held["triton_meta"], {key: held[key] for key in ("num_warps", "num_stages")}
        source = ASTSource(
            fn=held["function"], signature=dict(meta["signature"]), constexprs={}, attrs=dict(meta["configs"][0])
        )
        kernel = triton.compile(source, target=TARGET, options=options)
        ptx, listing = folder / f"{name}.ptx", folder / f"{name}.cubin"
        ptx.write_text(kernel.asm["ptx"])
        told = subprocess.run(
            [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", str(ptx), "-o", str(listing)],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        stack, registers = re.search(r"(\d+) bytes stack", told), re.search(r"Used (\d+) registers", told)
        assert stack is not None and registers is not None, told
        found.append(
            {"kernel": name, "shared": kernel.metadata.shared, "stack": int(stack[1]), "registers": int(registers[1])}
        )
    return found


def main(gradient: bool) -> None:
    """Lowers, compiles and prints."""
    packed = row()
    pretend()
    codes = lowered(packed, gradient)
    with tempfile.TemporaryDirectory() as folder:
        kernels = compiled_kernels(codes, Path(folder))
    print(
        json.dumps({"graphs": len(codes), "torch": torch.__version__, "triton": triton.__version__, "kernels": kernels})
    )


if __name__ == "__main__":
    main("gradient" in sys.argv)
