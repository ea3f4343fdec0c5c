"""What a suite plans: the runs of every strategy, seed and view, their steps and their FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.cases import Case
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.report.views import EQUAL_BUDGET, EQUAL_STEPS, MULTI_TASK, budget_view
from benchmarks.strategies import balancer_of, schedules_of, training_of
from benchmarks.suite.costs import StepCosts
from benchmarks.suite.runs import Run
from mt2st.balancing import Balancer
from mt2st.errors import Mt2stError
from mt2st.schedules import Constant, Schedule, listens, weight_at


class SuiteCosts:
    """Step costs by seed. Seeds with one labelled subset share one measurement: their batches have the same shapes."""

    def __init__(self, case: Case, knobs: SuiteKnobs, announce: Callable[[str], None] = lambda line: None) -> None:
        self._case, self._knobs, self._announce = case, knobs, announce
        self._known: dict[int, StepCosts] = {}

    def of(self, seed: int) -> StepCosts:
        """The costs of a step of seed `seed`."""
        draw = self._knobs.draw_seed(seed)
        if draw not in self._known:
            self.close()
            self._known[draw] = StepCosts(lambda: self._case.build(draw), self._announce, self._knobs.train)
        return self._known[draw]

    def close(self) -> None:
        """Let go of the models; see `StepCosts.close`."""
        for costs in self._known.values():
            costs.close()


def plan_runs(knobs: SuiteKnobs, costs: SuiteCosts, seeds: Iterable[int] | None = None) -> list[Run]:
    """The runs of a suite, seed by seed; one that counts for several views is planned once.

    What a schedule that listens will cost is not known: at equal steps its forecast is that of an auxiliary that never
    stops, without what listening costs; and that of a tower that is frozen from a point on, as if it ran at every step.

    Args:
        seeds: None = the suite's own.
    """
    runs = []
    for seed in range(knobs.seeds) if seeds is None else seeds:
        step = costs.of(seed)
        # A step's cost changes where parts are frozen for a time, and only there.
        all_active = dict.fromkeys(step.auxiliaries, Constant())
        mtl, stl = (training_flops(each, step.primary, step, knobs.steps, seed) for each in (all_active, {}))
        share_of_auxiliaries = step.auxiliary_share if len(step.turns) == 1 else 1 - stl / mtl
        everything = mtl * knobs.train.accumulation
        for kind in knobs.kinds():
            settings = knobs.strategy(kind.name)
            schedules = schedules_of(settings, step.auxiliaries)
            hears = any(listens(schedule) for schedule in schedules.values())
            times = training_of(settings, knobs.train).accumulation
            balancer = balancer_of(settings, (step.primary, *step.auxiliaries))

            def cost(
                active: tuple[str, ...],
                progress: float,
                step: StepCosts = step,
                times: int = times,
                balancer: Balancer | None = balancer,
            ) -> int:
                return step(active, progress, balancer=balancer) * times

            views: dict[int, list[str]] = {}
            if EQUAL_STEPS in knobs.views:
                views.setdefault(knobs.steps, []).append(EQUAL_STEPS)
            shares = {*knobs.budgets, 1.0} if knobs.full_mtl and kind.name == MULTI_TASK else set(knobs.budgets)
            for share in sorted(shares) if EQUAL_BUDGET in knobs.views else ():
                steps = steps_for_budget(share * everything, schedules, step.primary, cost, seed, step.turns)
                # When it stops an auxiliary, or which inputs come again, is known only afterwards: the budget ends it.
                if hears or step.remembers:
                    budget, view = int(share * everything), (budget_view(share),)
                    runs.append(Run(kind.name, seed, steps, view, budget, share_of_auxiliaries, budget=budget))
                    continue
                views.setdefault(steps, []).append(budget_view(share))
            for steps, names in views.items():
                flops = training_flops(schedules, step.primary, cost, steps, seed)
                runs.append(Run(kind.name, seed, steps, tuple(names), flops, share_of_auxiliaries))
    return runs


def training_flops(
    schedules: Mapping[str, Schedule],
    primary: str,
    cost: Callable[[tuple[str, ...], float], int],
    total_steps: int,
    seed: int,
) -> int:
    """Training FLOPs of a run of `total_steps` steps.

    Args:
        schedules: auxiliary's name → its schedule.
        primary: the primary task's name.
        cost: FLOPs of a step with these active tasks, primary first, at this progress.
        seed: decides the coins of sampled schedules.
    """
    total = 0
    for step in range(total_steps):
        active = tuple(
            name
            for name, schedule in schedules.items()
            if weight_at(schedule, step=step, total_steps=total_steps, seed=seed, task=name)
        )
        total += cost((primary, *active), step / total_steps)
    return total


def steps_for_budget(
    budget: float,
    schedules: Mapping[str, Schedule],
    primary: str,
    cost: Callable[[tuple[str, ...], float], int],
    seed: int,
    turns: Sequence[float] = (0.0,),
) -> int:
    """The largest number of steps whose training FLOPs do not exceed `budget`.

    For a switch of one auxiliary at s this is B / (c_primary + s·c_auxiliary).

    Args:
        turns: points of progress from which on a step costs otherwise, whatever is active (parts frozen for a time).

    Raises:
        Mt2stError: the budget does not pay for one step.
    """
    cheapest = min(cost((primary,), progress) for progress in turns)
    low, high = 0, int(budget // cheapest) + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        if training_flops(schedules, primary, cost, middle, seed) <= budget:
            low = middle
        else:
            high = middle
    if low < 1:
        raise Mt2stError(f"budget = {budget:g} training FLOPs is less than one step costs ({cheapest:g}); raise it")
    return low
