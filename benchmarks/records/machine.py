"""Where a run happened: commit, versions, machine; and readers of peak memory. Imports nothing heavy by itself."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "open_clip_torch", "transformers", "accelerate", "diffusers", "numpy", "scipy", "scikit-learn"),
    *("faiss-cpu", "faiss-gpu"),
)
_REPOSITORY = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """What every record holds of its surroundings: {"commit": …, "versions": …, "hardware": …}."""
    return {"commit": commit(), "versions": versions(), "hardware": hardware()}


def commit(folder: Path = _REPOSITORY) -> dict[str, Any] | None:
    """{"hash": 40 hex digits, "dirty": whether tracked files differ from it}.

    None outside a git checkout or without git.
    """
    head = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    if not head:
        return None
    status = _output("git", "-C", str(folder), "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return {"hash": head, "dirty": bool(status)}


def versions() -> dict[str, str]:
    """Installed versions by distribution name, from their metadata; what is not installed is absent."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """CPU model, cores, threads, RAM, system, and the GPUs with memory and driver.

    `threads` are those torch computes with once it is imported, else those the process may run on.
    """
    import psutil

    torch = sys.modules.get("torch")
    usable = _usable_cores()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "usable_cores": usable,
        "threads": torch.get_num_threads() if torch is not None else usable,
        "ram_bytes": int(psutil.virtual_memory().total),
        "system": f"{platform.system()} {platform.machine()}",
        "gpus": gpus(),
    }


def gpus() -> list[dict[str, Any]]:
    """The GPUs as the driver lists them: name, memory in bytes, driver version; empty where there is none."""
    listing = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
    found = []
    for line in listing.splitlines():
        name, mebibytes, driver = ([part.strip() for part in line.split(",")] + ["", ""])[:3]
        found.append(
            {"name": name, "memory_bytes": int(mebibytes) << 20 if mebibytes.isdigit() else None, "driver": driver}
        )
    return found


def describe(values: dict[str, Any]) -> str:
    """One line for people, from what `hardware` gave: "AMD EPYC …, 2 threads, 8.0 GiB RAM, no GPU"."""
    cards = values.get("gpus") or []
    gpu = ", ".join(card["name"] for card in cards) if cards else "no GPU"
    memory = values.get("ram_bytes")
    ram = f", {memory / 2**30:.1f} GiB RAM" if memory else ""
    return f"{values.get('cpu', 'unknown CPU')}, {values.get('threads', '?')} threads{ram}, {gpu}"


# -- memory ------------------------------------------------------------------------------------------------------------


_largest_seen_bytes = 0  # of all resident values read since the last reset


def resident_bytes() -> int:
    """Resident memory of this process now, in bytes."""
    global _largest_seen_bytes
    import psutil

    now = int(psutil.Process().memory_info().rss)
    _largest_seen_bytes = max(_largest_seen_bytes, now)
    return now


def reset_peak_resident() -> bool:
    """Start the peak anew, so that a run's peak is its own and not that of the run before.

    False where the system cannot.
    """
    global _largest_seen_bytes
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return False
    _largest_seen_bytes = 0
    return True


def peak_resident_bytes() -> int:
    """Highest resident memory of this process since the last `reset_peak_resident` (else since its start), in bytes.

    The kernel's peak lags its resident memory by some pages, so the peak is the larger of all that was seen: at least
    every value that `resident_bytes` gave since the reset.
    """
    now = resident_bytes()
    return max(_kernels_peak_bytes(), now, _largest_seen_bytes)


def _kernels_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def reset_peak_gpu() -> None:
    """Start the GPU peak anew; does nothing without CUDA.

    torch keeps the memory of earlier runs reserved, which would count as this run's. It is given back first.
    """
    if (torch := _cuda()) is not None:
        gc.collect()  # tensors of earlier runs that only a reference cycle keeps alive
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_bytes() -> int:
    """Highest memory that torch's allocator reserved on the current GPU since the last reset, in bytes.

    0 without CUDA.
    """
    torch = _cuda()
    return 0 if torch is None else int(torch.cuda.max_memory_reserved())


def _cuda() -> Any | None:
    """torch, if it is imported and has started CUDA; never the one to import or start it."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown CPU"


def _output(*command: str) -> str:
    """Standard output of a program, stripped; "" when it is absent, fails or takes longer than 10 s."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
