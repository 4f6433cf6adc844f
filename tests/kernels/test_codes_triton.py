"""Triton's form gives the bits of torch's operators, and compiles; without a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

COMPARED = """
import torch
from shoestring.kernels import codes, codes_eager, codes_triton

generator = torch.Generator().manual_seed(0)
for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
    for bits, edges in ((1, 1), (3, 7), (3, 9), (6, 60)):
        borders = torch.randn(edges, generator=generator, dtype=torch.float64).sort().values
        names = torch.randint(2**bits, (edges + 1,), generator=generator).tolist()
        encoder = codes.Encoder(borders.tolist(), names, bits)
        levels = tuple(torch.randn(2**bits, generator=generator).tolist())
        for count in (0, 1, 65, 1300):
            x = torch.randn(count, generator=generator, dtype=torch.float64).to(dtype)
            if count > 100:
                x[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
                x[3 : 3 + edges] = borders.to(dtype)
            blocks, found = -(-count // 64), []
            for form in (codes_eager, codes_triton):
                packed = torch.empty(codes.packed_size(count, bits), dtype=torch.uint8)
                form.encoding(x, encoder, packed)(0, blocks)
                form.multiply(x, packed, levels, product := torch.empty_like(x))
                found.append((packed, product.isnan(), product.nan_to_num(7.0)))
            assert all(map(torch.equal, *found)), (dtype, bits, count)
print("same")
"""

COMPILED = """
import warnings
warnings.simplefilter("ignore")
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from shoestring.kernels import codes_triton

def compiled(function, constants, **types):
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=function, signature=types, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm

for x, wide, out in (("*fp32", "*fp32", "*fp32"), ("*bf16", "*fp32", "*i16")):
    arrays = {"x": x, "borders": wide, "codes": "*u8", "packed": "*u8"}
    asm = compiled(codes_triton._encode, {"bits": 3}, **arrays, count="i32", edges="i32")
    assert "ld.global" in asm["ptx"]
    arrays = {"grad": x, "packed": "*u8", "levels": wide, "out": out}
    constants = {"bits": 3, "short": out == "*i16"}
    asm = compiled(codes_triton._multiply, constants, **arrays, count="i32")
    assert "st.global" in asm["ptx"]
print("compiled")
"""


def said(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )
    return done.stdout or done.stderr


@needs_triton
def test_the_interpreter_gives_the_bits_of_torch() -> None:
    assert said(COMPARED, TRITON_INTERPRET="1") == "same\n"


@needs_triton
def test_the_kernels_compile() -> None:
    assert said(COMPILED) == "compiled\n"
