"""The engine of this machine: a worker process for each of `slots`, each making one run after the other."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.suite.engines import Check, Ended, Needs, Order, slots_here
from benchmarks.suite.engines._process import WorkerProcess
from benchmarks.suite.machine import ROOT, gpu_names
from mt2st.errors import Mt2stError


class Engine:
    """Workers on this machine. They are started when first needed, and again when one has died."""

    def __init__(self, knobs: JobKnobs, needs: Needs, check: Check, most: int) -> None:
        self.slots = knobs.jobs or slots_here(needs, knobs.jobs_per_device, most)
        devices = gpu_names()
        if devices and knobs.jobs > len(devices) * knobs.jobs_per_device:
            raise Mt2stError(
                f"--jobs {knobs.jobs} are more than {len(devices)} GPUs × {knobs.jobs_per_device} runs; lower --jobs, "
                "or raise --jobs-per-device"
            )
        self._needs, self._check = needs, check
        self._devices = [devices[slot % len(devices)] if devices else None for slot in range(self.slots)]
        self._workers: list[WorkerProcess | None] = [None] * self.slots
        self._orders: list[Order | None] = [None] * self.slots

    def start(self, order: Order) -> None:
        slot = self._orders.index(None)
        worker = self._workers[slot]
        if worker is None:
            worker = WorkerProcess(ROOT, asdict(self._check), self._needs.threads, self._devices[slot])
            self._workers[slot] = worker
        self._orders[slot] = order
        worker.give(asdict(order))

    def ended(self) -> list[Ended]:
        found = []
        for slot, (worker, order) in enumerate(zip(self._workers, self._orders, strict=True)):
            if worker is None or order is None or (answer := worker.answer()) is None:
                continue
            if answer["kind"] == "refused":
                raise Mt2stError(answer["text"])
            if answer["kind"] in ("died", "interrupted"):  # this worker takes no more orders
                worker.end()
                worker.wait()
                self._workers[slot] = None
            self._orders[slot] = None
            found.append(Ended(order.run_dir, **answer))
        return found

    def place(self, run_dir: str) -> str:
        for slot, order in enumerate(self._orders):
            worker = self._workers[slot]
            if order is not None and order.run_dir == run_dir and worker is not None:
                device = self._devices[slot]
                return f"process {worker.pid}" + (f", GPU {device}" if device is not None else "")
        return ""

    def stop(self) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.end()
        for worker in self._workers:
            if worker is not None:
                worker.wait()
