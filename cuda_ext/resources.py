"""Compiles the kernels for GPUs that are not here, and compares registers, spills and more with a table.

    python -m diffalign.cuda_ext.resources            # compares; exit status 1 where something differs
    python -m diffalign.cuda_ext.resources --write    # writes the table of the installed Triton

Needs Triton with the tools in its wheel, no GPU. There is a table per version of Triton; without one the figures are
printed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).with_name("resources.json")
KERNELS = ("sampler_step", "cross_attention", "linear_log_prob")
ARCHITECTURES = (80, 90)
SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Most shared memory of a block, in bytes."""
REGISTERS = 255


class Variant(NamedTuple):
    """One compilation of a kernel.

    Attributes:
        name: In the table.
        kernel: The function under `triton.jit`.
        types: Triton's type of each argument that is no constexpr, `*bf16` or `i32`; None for a pointer that is None.
        constants: The constexpr arguments.
        options: Of the launch, such as num_warps.
        architectures: Compute capabilities that it is launched on.
    """

    name: str
    kernel: Any
    types: Mapping[str, str | None]
    constants: Mapping[str, Any]
    options: Mapping[str, Any]
    architectures: tuple[int, ...] = ARCHITECTURES


class Resources(NamedTuple):
    """What a block takes.

    Attributes:
        registers: Of a thread.
        spills: Bytes of registers that a thread spills.
        shared: Bytes of shared memory.
        wgmma: Warp group matrix instructions in the PTX: Hopper's way of multiplying.
    """

    registers: int
    spills: int
    shared: int
    wgmma: int


def variants(kernels: Sequence[str] = KERNELS) -> Iterator[Variant]:
    """What is compiled, by the modules of the kernels."""
    for name in kernels:
        yield from import_module(f"diffalign.cuda_ext.{name}.kernel").variants()


def compiled(variant: Variant, architecture: int) -> Resources:
    """Compiles a variant for a compute capability, 80 or 90.

    Raises:
        RuntimeError: If the compiled kernel cannot be read.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(variant.kernel.arg_names)
    signature = {name: variant.types.get(name) or "constexpr" for name in names}
    absent = {name: None for name, kind in variant.types.items() if kind is None}
    constants = {(names.index(name),): value for name, value in {**variant.constants, **absent}.items()}
    aligned = {
        (names.index(n),): [["tt.divisibility", 16]] for n, kind in variant.types.items() if kind and "*" in kind
    }
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"enable_fp_fusion": True, **variant.options}
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    registers, spills = _usage(made.asm["cubin"])
    return Resources(registers, spills, int(made.metadata.shared), made.asm["ptx"].count("wgmma.mma_async"))


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of stack (which these kernels have for spilled registers alone), of a compiled kernel."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [str(tool), "--dump-resource-usage", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    if done.returncode or not found:
        raise RuntimeError(f"cuobjdump says nothing of registers: {done.stdout} {done.stderr}")
    return int(found.group(1)), int(found.group(2))


def version() -> str:
    """Of the installed Triton."""
    import triton

    return str(triton.__version__)


def measured(kernels: Sequence[str] = KERNELS) -> dict[str, list[int]]:
    """`name sm_90` -> [registers, spills, shared, wgmma] of every variant and architecture."""
    return {
        f"{variant.name} sm_{architecture}": list(compiled(variant, architecture))
        for variant in variants(kernels)
        for architecture in variant.architectures
    }


def known() -> dict[str, list[int]] | None:
    """The table of the installed Triton; None where there is none."""
    tables: dict[str, dict[str, list[int]]] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    return tables.get(version())


def write(found: Mapping[str, list[int]]) -> None:
    """Puts measurements into the table of the installed Triton, one line each."""
    tables = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    tables[version()] = dict(sorted(found.items()))
    parts = [
        f'  "{release}": {{\n' + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n  }"
        for release, rows in sorted(tables.items())
    ]
    TABLE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def differences(found: Mapping[str, list[int]], expected: Mapping[str, list[int]]) -> list[str]:
    """One line for each variant whose resources are not those of a table; rows of other kernels do not count."""
    return [
        f"{name}: {dict(zip(Resources._fields, row, strict=True))}; table: {expected.get(name)}"
        for name, row in found.items()
        if row != expected.get(name)
    ]


def main() -> int:
    """Compares, or writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table of the installed Triton")
    options = parser.parse_args()
    found, expected = measured(), known()
    if options.write:
        write(found)
        return 0
    if expected is None:
        print(f"no table for Triton {version()}:", json.dumps(found, indent=1), sep="\n")
        return 0
    changed = differences(found, expected)
    print("\n".join(changed) or f"all {len(found)} variants as in the table of Triton {version()}")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
