"""Time: what was spent, what is left of the budget, and how a training run keeps to its share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def replans(recorded: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[tuple[int, int]]]:
    """Shortenings as they were before JSON made lists of them."""
    return {name: [(int(a), int(b)) for a, b in found] for name, found in recorded.items()}


@dataclass
class Clock:
    """Seconds since a run began, counting what earlier, interrupted attempts at the same run have spent.

    ``budget`` is None where a recorded plan is followed: the clock is then never consulted for a decision.
    """

    budget: float | None
    spent_before: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def elapsed(self) -> float:
        """Seconds spent so far."""
        return self.spent_before + time.perf_counter() - self.started

    def remaining(self) -> float:
        """Seconds left of the budget; infinite where a recorded plan is followed."""
        return float("inf") if self.budget is None else self.budget - self.elapsed()


@dataclass
class Pace:
    """Keeps one fit within ``seconds``, counted from now: shortens its training when steps turn out slower than predicted, and, where
    it ``may_grow``, lengthens one that had been planned shorter than it would have liked when they turn out quicker.

    ``replans`` records every change as ``(step, new total)``; given the same list with ``follow=True``, a later run changes at
    the same steps without looking at the clock, so that it computes the same bits. ``may_skip``: what is trained is usable as it is,
    so no step at all is better than a few. ``after`` of the seconds are for what follows the training; they become more where steps
    become slower, as a machine does that others use too. ``parts`` holds the replans of what was trained before, by name.
    """

    seconds: float
    replans: list[tuple[int, int]] = field(default_factory=list)
    follow: bool = False
    may_skip: bool = False
    may_grow: bool = False
    after: float = 0.0
    parts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    made: float = field(default_factory=time.perf_counter)
    _first: int = 0
    _times: list[float] = field(default_factory=list)
    _quickest: float = float("inf")

    WARM_UP = 4
    """Steps before the first judgement, where there is time for them: the first ones pay for memory allocation."""

    LANDING = 4
    """Steps that a shortened run still takes at least, so that the learning rate falls to zero however late it is."""

    GRACE = 2.0
    """Seconds of warming up or landing that no time has to be left for."""

    JUDGED = frozenset({8, 16, 32, 64, 128, 256, 512, 1024})
    """Steps after which a run may be lengthened: seldom, so that the learning rate falls smoothly."""

    MARGIN = 0.97
    """Share of the affordable steps that a lengthened run takes, so that the next moment's noise does not shorten it again."""

    RECENT = 16
    """Steps that tell how quick the machine is now."""

    SLOWER = 1.15
    """By so much recent steps must be slower than all on average, or it is noise."""

    def start(self, step: int) -> None:
        """Begin timing at ``step``."""
        self._first, self._times, self._quickest = step, [time.perf_counter()], float("inf")

    def left(self) -> float:
        """Seconds left for training, where what follows has its share."""
        return self.seconds - (time.perf_counter() - self.made) - self.after

    def total(self, step: int, total: int, most: int = 0) -> int:
        """How many steps this run shall have, judged before step number ``step`` of ``total``; never more than ``most``."""
        if self.follow:
            return next((new for at, new in self.replans if at == step), total)
        done = step - self._first
        if self.may_skip and done == 0 and total > step and self.left() <= 0:
            self.replans.append((step, step))  # what came before took all the time: a few steps at the peak rate would only do harm
            return step
        self._times.append(time.perf_counter())
        if done == 0 or total <= step:
            return total
        each, slower = self._each(done)
        left = self.left() - self.after * (slower - 1)
        if done < self.WARM_UP and each * self.WARM_UP < max(self.GRACE, left):
            return total
        affordable = step + int(min(max(0.0, left) / each, max(total, most)))
        if self.may_grow and done in self.JUDGED and total < (longer := min(most, step + int((affordable - step) * self.MARGIN))):
            self.replans.append((step, longer))
            return longer
        # A little over is tolerated, so that noise does not shorten a run again and again.
        if affordable < total * 0.98 - 1:
            shorter = max(step + max(1, min(self.LANDING, int(self.GRACE / each))), affordable)
            if shorter < total:
                total = shorter
                self.replans.append((step, total))
        return total

    def _each(self, done: int) -> tuple[float, float]:
        """Seconds of a step now, and by what factor that is slower than it has been."""
        now = self._times[-1]
        mean = (now - self._times[0]) / done
        if done < self.RECENT:
            return mean, 1.0
        recent = (now - self._times[-1 - self.RECENT]) / self.RECENT
        self._quickest = min(self._quickest, recent)
        return (recent, recent / self._quickest) if recent > self.SLOWER * mean else (mean, 1.0)
