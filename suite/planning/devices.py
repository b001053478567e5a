"""What devices can do by their data sheets, and how much of it a plan counts on; nothing is measured."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from suite.types import UserError

TRAINING_SHARE = 0.35
"""Assumption: the share of a device's peak FLOP/s that scoring and updates reach (ours)."""
CPU_CORES = 2
"""Cores of the device `cpu`; its memory and its peaks are those of all of them together."""
DECODING_SHARE = 0.5
"""Assumption: the share of a device's memory bandwidth that decoding reaches (ours)."""


@dataclass(frozen=True)
class Device:
    """Memory in GiB, dense peaks in FLOP/s without sparsity, bandwidth in bytes/s, and where the figures stand.

    float32 is the peak of ordinary float32 products (no TF32, which torch leaves off). launch_seconds: assumed time
    that one decoder layer costs at least in a decoding step, whatever its size.
    """

    name: str
    memory_gib: float
    bfloat16: float
    float32: float
    bandwidth: float
    launch_seconds: float
    source: str

    @property
    def is_gpu(self) -> bool:
        """Whether the device has a memory of its own, apart from the interpreter's."""
        return self.name != "cpu"

    def peak(self, precision: str) -> float:
        """Dense peak in FLOP/s of a compute precision, `float32` or `bfloat16`."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


def _gpu(name: str, memory: float, bfloat16: float, float32: float, bandwidth: float, source: str) -> Device:
    """A GPU from the units of data sheets: GB (meant as GiB, of which a program sees 2.5 % less), TFLOP/s, GB/s."""
    return Device(name, 0.975 * memory, bfloat16 * 1e12, float32 * 1e12, bandwidth * 1e9, 4e-4, source)


DEVICES = {
    device.name: device
    for device in (
        _gpu("h100-80gb", 80, 989.4, 66.9, 3350, "NVIDIA H100 data sheet, SXM5; dense = half of the sparse figure"),
        _gpu("h200", 141, 989.4, 66.9, 4800, "NVIDIA H200 data sheet, SXM; dense = half of the sparse figure"),
        _gpu("a100-80gb", 80, 312, 19.5, 2039, "NVIDIA A100 data sheet, 80GB SXM"),
        _gpu("rtx-5090-32gb", 32, 209.5, 104.8, 1792, "NVIDIA RTX Blackwell white paper, GeForce RTX 5090, FP32 sums"),
        Device(
            name="cpu",
            memory_gib=24,
            bfloat16=640e9,
            float32=320e9,
            bandwidth=40e9,
            launch_seconds=2e-4,
            source="ours: 2 cores x 2 units x 16 lanes x 2 FLOP x 2.5 GHz (AVX-512; twice with AVX512-BF16)",
        ),
    )
}


def device_named(name: str) -> Device:
    """The device of that name; UserError with the names there are for any other."""
    if name not in DEVICES:
        near = [known for known in DEVICES if known.startswith(name)] or get_close_matches(name, DEVICES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown device {name!r}; {hint}there are: {', '.join(DEVICES)}")
    return DEVICES[name]
