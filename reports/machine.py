"""The machine and its versions, its measured ceilings, and whether they belong to this run."""

from __future__ import annotations

from dataclasses import dataclass

from ..profiles.schema import Ceiling, Fingerprint, MachineProfile
from ..runtime.schema import Measurements
from .facts import Fact, facts
from .format import ceiling_value, memory

_NAMES = {
    "flop_per_s:fma_f32": "float32 multiply-add",
    "flop_per_s:fma_f16": "half-precision multiply-add",
    "flop_per_s:dot_bf16": "bfloat16 dot product",
    "flop_per_s:dot_int8": "int8 dot product",
    "flop_per_s:tile_bf16": "bfloat16 tile product",
    "flop_per_s:tile_int8": "int8 tile product",
    "bandwidth_byte_per_s:l1": "L1",
    "bandwidth_byte_per_s:l2": "L2",
    "bandwidth_byte_per_s:l3": "L3",
    "bandwidth_byte_per_s:dram": "memory",
    "latency_s:parallel_region": "start of a parallel region",
    "latency_s:torch_op": "call of a torch operation",
    "latency_s:timer": "reading of the clock",
    "clock_hz": "clock",
    "flop_per_s:gpu_f32": "GPU float32 product",
    "flop_per_s:gpu_tf32": "GPU TF32 product",
    "flop_per_s:gpu_tf32x3": "GPU float32 product of three TF32 ones",
    "flop_per_s:gpu_f16": "GPU half-precision product",
    "flop_per_s:gpu_bf16": "GPU bfloat16 product",
    "flop_per_s:gpu_fp8": "GPU 8-bit float product",
    "flop_per_s:gpu_int8": "GPU int8 product",
    "flop_per_s:gpu_f16_2:4": "GPU half-precision 2:4 product",
    "flop_per_s:gpu_bf16_2:4": "GPU bfloat16 2:4 product",
    "latency_s:launch_eager": "launch of a GPU kernel",
    "latency_s:launch_graph": "launch of a GPU kernel in a graph",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingRow:
    """A limit of the machine, formatted."""

    what: str
    value: str
    interval: str
    threads: str
    source: str


def machine_facts(measurements: Measurements) -> tuple[Fact, ...]:
    """Where the measurements were taken."""
    machine = measurements.fingerprint
    caches = f"L1d {memory(machine.l1d_bytes)}, L2 {memory(machine.l2_bytes)}, L3 {memory(machine.l3_bytes)}"
    return facts(
        ("CPU", machine.cpu_model),
        ("instruction sets", ", ".join(machine.isa)),
        ("cores", f"{machine.cores_physical} physical, {machine.cores_usable} usable"),
        ("threads used", str(measurements.threads)),
        ("caches", caches),
        ("memory", memory(machine.memory_bytes)),
        ("GPU", machine.gpu_model or "none"),
        ("operating system", machine.operating_system),
        ("Python", machine.python_version),
        ("torch", machine.torch_version),
        ("sparseplan", machine.sparseplan_version),
        ("measured", f"{measurements.created:%Y-%m-%d %H:%M %Z}".strip()),
    )


def ceiling_table(profile: MachineProfile) -> tuple[CeilingRow, ...]:
    """Every ceiling of the profile with its interval and source."""
    return tuple(
        CeilingRow(
            what=f"bandwidth of {short_name(ceiling)}" if ceiling.unit == "byte/s" else short_name(ceiling),
            value=ceiling_value(ceiling, ceiling.value),
            interval=f"{ceiling_value(ceiling, ceiling.low)} – {ceiling_value(ceiling, ceiling.high)}",
            threads=str(ceiling.threads),
            source=ceiling.source,
        )
        for ceiling in profile.ceilings
    )


def short_name(ceiling: Ceiling) -> str:
    """What a ceiling limits, in words."""
    for access in ("store", "copy"):
        if ceiling.name.endswith(f":{access}"):
            level = ceiling.name.removesuffix(f":{access}")
            return f"{_NAMES.get(level, level)} {access}"
    return _NAMES.get(ceiling.name, ceiling.name)


def profile_mismatch(measurements: Measurements, profile: MachineProfile) -> tuple[str, ...]:
    """In what the profile's machine differs from the one that was measured; empty where it is the same."""
    names = [name for name in Fingerprint.model_fields if name != "sparseplan_version"]
    differences = [
        f"{name.replace('_', ' ')}: profile {getattr(profile.fingerprint, name)}, "
        f"measurement {getattr(measurements.fingerprint, name)}"
        for name in names
        if getattr(profile.fingerprint, name) != getattr(measurements.fingerprint, name)
    ]
    if profile.threads != measurements.threads:
        differences.append(f"threads: profile {profile.threads}, measurement {measurements.threads}")
    return tuple(differences)
