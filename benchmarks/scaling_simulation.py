"""A fleet of cards that talking sessions arrive at: utilisation, waiting times, refusals and losses, by simulation.

    python benchmarks/scaling_simulation.py [--sessions 10 100 1000 10000] [--minutes 10] [--patience 10] [--seed 0]

Arrivals are a Poisson process, lengths are exponential. A session takes one slot of one card. Where no slot is free it
waits in line, at most for the patience, then it is refused. Cards are lost at random; the sessions on a lost card go to
the front of the line and repeat what had not been saved. Prints a Markdown table; the same seed gives the same table.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

import simpy

WARM_UP = 5  # mean lengths of a session
ARRIVALS = 20  # simulated for each session at once, and at least LEAST
LEAST = 100_000
MARGINS = (0, 1, 2)  # slots beyond the sessions at once, in square roots of these


@dataclass(frozen=True)
class Load:
    """What arrives at what. Times are in seconds.

    sessions: mean number at once if none were refused. slots: in all. per_card: slots of a card. length: mean of a
    session. patience: the longest wait. lifetime: mean time until a card is lost. repair: until there is another.
    repeated: what a session does again after a loss, half a save interval on average and the start.
    """

    sessions: float
    slots: int
    per_card: int = 1
    length: float = 600.0
    patience: float = math.inf
    lifetime: float = math.inf
    repair: float = 600.0
    repeated: float = 0.0


@dataclass
class Result:
    """What happened to the sessions that arrived after the warm-up, and to all slots since then."""

    waits: list[float] = field(default_factory=list)  # of admitted sessions, until their first slot
    refused: int = 0
    interrupted: int = 0  # sessions that were moved at least once
    busy: float = 0.0  # slot-seconds
    offered: float = 0.0  # slot-seconds, lost cards included

    @property
    def arrived(self) -> int:
        return len(self.waits) + self.refused

    @property
    def utilisation(self) -> float:
        """Share of all slots that was in use."""
        return self.busy / self.offered

    @property
    def refused_share(self) -> float:
        return self.refused / self.arrived

    @property
    def interrupted_share(self) -> float:
        """Of the sessions that got a slot."""
        return self.interrupted / len(self.waits)

    def wait(self, percent: int) -> float:
        """A percentile of the waiting times, in seconds."""
        return statistics.quantiles(self.waits, n=100)[percent - 1]


class Card:
    """A card, or the worker on it: how many slots are free, and who has the others."""

    def __init__(self, slots: int) -> None:
        self.up, self.free = True, slots
        self.held: dict[simpy.Process, float] = {}  # session -> since when


class Fleet:
    """All cards, and the line of those who wait for a slot."""

    def __init__(self, env: simpy.Environment, load: Load, rng: random.Random) -> None:
        self.env, self.load, self.rng = env, load, rng
        self.warm = WARM_UP * load.length  # from when on things are counted
        counts = [load.per_card] * (load.slots // load.per_card)
        counts += [load.slots % load.per_card] if load.slots % load.per_card else []
        self.cards = [Card(count) for count in counts]
        self.open = deque(card for card in self.cards for _ in range(card.free))  # a card per free slot; may be stale
        self.line: deque[simpy.Event] = deque()
        if math.isfinite(load.lifetime):
            for card in self.cards:
                env.process(self.fail(card))

    def slot(self, front: bool = False) -> simpy.Event:
        """An event whose value is the card of the slot."""
        event = self.env.event()
        if front:
            self.line.appendleft(event)
        else:
            self.line.append(event)
        self.serve()
        return event

    def serve(self) -> None:
        """Give free slots to those in front of the line."""
        while self.line and self.open:
            card = self.open.popleft()
            if not (card.up and card.free):
                continue
            card.free -= 1
            self.line.popleft().succeed(card)

    def leave(self, card: Card) -> None:
        """A slot is free again; on a card that is lost it comes back with the card."""
        card.free += 1
        if card.up:
            self.open.append(card)
            self.serve()

    def fail(self, card: Card) -> Generator:
        """Lose a card now and then."""
        while True:
            yield self.env.timeout(self.rng.expovariate(1 / self.load.lifetime))
            card.up = False
            for session in list(card.held):
                session.interrupt()
            yield self.env.timeout(self.load.repair)
            card.up = True
            self.open.extend([card] * card.free)
            self.serve()


def session(fleet: Fleet, length: float, result: Result, counts: bool) -> Generator:
    """One session from its arrival to its end."""
    env, me, came = fleet.env, fleet.env.active_process, fleet.env.now
    granted = fleet.slot()
    if not granted.triggered and math.isfinite(fleet.load.patience):
        yield granted | env.timeout(fleet.load.patience)
        if not granted.triggered:
            fleet.line.remove(granted)
            result.refused += counts
            return
    card = yield granted
    if counts:
        result.waits.append(env.now - came)
    moved = False
    while True:
        started = env.now
        card.held[me] = started
        try:
            if card.up:
                yield env.timeout(length)
            lost = not card.up
        except simpy.Interrupt:
            lost = True
        card.held.pop(me)
        result.busy += max(0.0, env.now - max(started, fleet.warm))
        fleet.leave(card)
        if not lost:
            break
        moved = True
        length = max(0.0, length - (env.now - started)) + fleet.load.repeated
        card = yield fleet.slot(front=True)
    result.interrupted += counts and moved


def simulate(load: Load, arrivals: int, seed: int = 0) -> Result:
    """Let about `arrivals` sessions arrive behind the warm-up; those that wait when the last one comes do not count."""
    rng, env, result = random.Random(seed), simpy.Environment(), Result()
    fleet = Fleet(env, load, rng)
    rate = load.sessions / load.length
    end = fleet.warm + arrivals / rate

    def arrive() -> Generator:
        while env.now < end:
            yield env.timeout(rng.expovariate(rate))
            length = rng.expovariate(1 / load.length)
            env.process(session(fleet, length, result, fleet.warm <= env.now < end))

    env.process(arrive())
    env.run(until=end)
    result.busy += sum(end - max(fleet.warm, began) for card in fleet.cards for began in card.held.values())
    result.offered = load.slots * (end - fleet.warm)
    return result


def slots_for(sessions: float, margin: float) -> int:
    """The square-root rule: as many slots as sessions, and a margin for their fluctuation, which grows more slowly."""
    return math.ceil(sessions + margin * math.sqrt(sessions))


def row(load: Load, result: Result) -> str:
    """A line of the table."""
    return (
        f"| {load.sessions:,.0f} | {load.slots:,} | {result.utilisation:.1%} | {result.wait(50):.1f} | "
        f"{result.wait(95):.1f} | {result.refused_share:.2%} | {result.interrupted_share:.2%} |"
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=float, nargs="+", default=[10, 100, 1000, 10_000], help="mean, at once")
    parser.add_argument("--minutes", type=float, default=10, help="mean length of a session")
    parser.add_argument("--patience", type=float, default=10, help="seconds in line before a session is refused")
    parser.add_argument("--per-card", type=int, default=1, help="sessions that a card carries")
    parser.add_argument("--lifetime", type=float, default=24, help="hours until a card is lost, on average")
    parser.add_argument("--repair", type=float, default=10, help="minutes until a lost card is replaced")
    parser.add_argument("--repeated", type=float, default=20, help="seconds that a moved session makes again")
    parser.add_argument("--arrivals", type=int, default=LEAST, help="simulated sessions of a row, at least")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    print("| sessions at once | slots | utilisation | wait, median s | wait, 95 % s | refused | moved |")
    print("|---|---|---|---|---|---|---|")
    for sessions in args.sessions:
        for margin in MARGINS:
            load = Load(
                sessions, slots_for(sessions, margin), args.per_card, 60 * args.minutes, args.patience,
                3600 * args.lifetime, 60 * args.repair, args.repeated,
            )  # fmt: skip
            arrivals = max(args.arrivals, round(ARRIVALS * sessions))
            print(row(load, simulate(load, arrivals, args.seed)), flush=True)


if __name__ == "__main__":
    main()
