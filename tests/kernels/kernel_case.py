"""What the ahead-of-time test is told of a kernel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_REGISTERS = 255
"""Of a thread, by the instruction set."""
MAX_SHARED_BYTES = 227 * 1024
"""Of a program, by the H100's hardware."""


@dataclass(frozen=True, kw_only=True)
class KernelCase:
    """A kernel with the types of its arguments, its constants, and what it may need."""

    kernel: str
    """module:name."""
    signature: Mapping[str, str]
    """Argument -> type, as Triton writes it (`*fp32`, `*bf16`, `*i64`, `i32`, `fp32`); all but the constants."""
    constants: Mapping[str, object] = field(default_factory=dict)
    """Compile-time argument -> value."""
    num_warps: int = 4
    num_stages: int = 3
    max_registers: int = MAX_REGISTERS
    max_spilled_bytes: int = 0
    """Stored to and loaded from local memory, added up."""
    max_shared_bytes: int = MAX_SHARED_BYTES
