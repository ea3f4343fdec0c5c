"""The knobs that say where the runs of a suite are made, and how many at a time. They change no number."""

from __future__ import annotations

from dataclasses import dataclass

from mt2st.errors import Mt2stError


@dataclass(frozen=True, kw_only=True)
class JobKnobs:
    """Runs side by side."""

    jobs: int = 0
    """runs at a time, each in a process of its own; 0 = as many as cores, GPUs and free memory carry"""
    jobs_per_device: int = 1
    """runs that share one GPU, for small models"""
    engine: str = "local"
    """what starts the runs: local, ray or slurm"""
    ray_address: str = ""
    """address of a Ray cluster, such as 10.0.0.5:6379 or auto; empty = a Ray of its own on this machine"""
    slurm: tuple[str, ...] = ()
    """settings of SLURM jobs as submitit names them, such as slurm_partition=gpu timeout_min=600"""

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise Mt2stError(f"jobs = {self.jobs} must be ≥ 0; 0 = as many as the machine carries")
        if self.jobs_per_device < 1:
            raise Mt2stError(f"jobs_per_device = {self.jobs_per_device} must be ≥ 1")
        if self.ray_address and self.engine != "ray":
            raise Mt2stError(f"ray_address = {self.ray_address!r} needs --engine ray, not {self.engine}")
        if self.slurm and self.engine != "slurm":
            raise Mt2stError(f"slurm = {' '.join(self.slurm)} needs --engine slurm, not {self.engine}")
        for setting in self.slurm:
            if "=" not in setting.strip("="):
                raise Mt2stError(f"slurm: {setting!r} is not NAME=VALUE; for example --slurm slurm_partition=gpu")
