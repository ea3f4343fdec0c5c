"""The engine of Ray: an actor a slot, on any node of a cluster, each with a worker process that makes run after run.

Ray Core alone, not Tune, whose driver grows with the number of trials (ray#64231). Threads are set in each worker,
since Ray sets OMP_NUM_THREADS by itself from the cores that an actor asks for. When a node dies, its runs go on
elsewhere from their last checkpoints.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import asdict
from typing import Any

from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.suite.engines import Check, Ended, Needs, Order, _process, missing_package
from benchmarks.suite.machine import ROOT
from mt2st.errors import Mt2stError

_CONNECT_SECONDS = 10.0


class Engine:
    """Actors of a Ray cluster, or of a Ray of its own on this machine.

    Raises:
        Mt2stError: Ray is not installed or its address does not answer.
    """

    def __init__(self, knobs: JobKnobs, needs: Needs, check: Check, most: int) -> None:
        try:
            import ray
        except ImportError:
            raise missing_package("ray", "ray", "ray") from None
        self._ray: Any = ray
        _connect(ray, knobs.ray_address)
        self._needs, self._check = needs, check
        self.slots = knobs.jobs or max(1, min(most, self._room(ray.cluster_resources())))
        ray.cloudpickle.register_pickle_by_value(_process)  # other nodes need no import of this package's parts
        self._host = ray.remote(_process.Host)
        self._idle: list[Any] = []
        self._work: dict[Any, tuple[Any, Order]] = {}  # answer to come → actor and its order
        self._nodes: dict[Any, Any] = {}  # actor → answer of its node's name

    def _room(self, resources: dict[str, float]) -> int:
        by_cores = int(resources.get("CPU", 1) // self._needs.threads)
        return int(resources.get("GPU", 0) // self._needs.gpus) if self._needs.gpus else by_cores

    def start(self, order: Order) -> None:
        actor = self._idle.pop() if self._idle else self._new_actor()
        self._work[actor.make.remote(asdict(order))] = actor, order

    def _new_actor(self) -> Any:
        asked: dict[str, Any] = {"num_cpus": self._needs.threads, "max_restarts": 0, "max_concurrency": 2}
        if self._needs.gpus:
            asked["num_gpus"] = self._needs.gpus
        if self._needs.memory_bytes:
            asked["memory"] = self._needs.memory_bytes
        actor = self._host.options(**asked).remote(ROOT, asdict(self._check), self._needs.threads)
        self._nodes[actor] = actor.node.remote()
        return actor

    def ended(self) -> list[Ended]:
        if not self._work:
            return []
        ready, _ = self._ray.wait(list(self._work), num_returns=len(self._work), timeout=0)
        found = []
        for answer in ready:
            actor, order = self._work.pop(answer)
            try:
                told = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                told = {"kind": "died", "text": f"its actor or node died ({_first_line(error)})"}
            if told["kind"] == "refused":
                raise Mt2stError(told["text"])
            if told["kind"] in ("died", "interrupted"):
                self._forget(actor)
            else:
                self._idle.append(actor)
            found.append(Ended(order.run_dir, **told))
        self._move_waiting()
        return found

    def _move_waiting(self) -> None:
        """Orders whose actors still wait for room, on a cluster that lost a node, go to actors that are idle."""
        for answer, (actor, order) in list(self._work.items()):
            if self._idle and not self._began(actor):
                del self._work[answer]
                self._forget(actor)
                self.start(order)

    def _began(self, actor: Any) -> bool:
        return bool(self._ray.wait([self._nodes[actor]], timeout=0)[0])

    def _forget(self, actor: Any) -> None:
        self._nodes.pop(actor, None)
        self._ray.kill(actor)

    def place(self, run_dir: str) -> str:
        for actor, order in self._work.values():
            if order.run_dir == run_dir:
                with contextlib.suppress(self._ray.exceptions.RayError):  # a node that died has no name
                    return str(self._ray.get(self._nodes[actor])) if self._began(actor) else "waiting for room"
        return ""

    def stop(self) -> None:
        asked = [actor.stop.remote() for actor in self._nodes]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=_process.STOP_SECONDS)
        self._ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    if ray.is_initialized():
        return
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():  # Ray itself tries for minutes before it says that nobody is there
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise Mt2stError(
                f"--ray-address {address} does not answer ({error.strerror or error}); start it with "
                "`ray start --head`, or leave the address out for a Ray of this machine alone"
            ) from None
    quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    if not address:
        quiet["include_dashboard"] = False
    try:
        ray.init(address=address or "local", namespace="mt2st", **quiet)
    except (RuntimeError, ValueError, ConnectionError, OSError) as error:
        raise Mt2stError(
            f"Ray could not be reached at {address or 'this machine'} ({_first_line(error)}); check --ray-address, and "
            "that driver and cluster have one version of Ray and one token"
        ) from None


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
