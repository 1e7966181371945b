"""The simulated fleet against the formulas of queueing theory, and what losing cards does."""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scaling_simulation.py"
spec = importlib.util.spec_from_file_location("scaling_simulation", SCRIPT)
simulation = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(simulation)
Load, simulate = simulation.Load, simulation.simulate


def erlang_b(sessions: float, slots: int) -> float:
    """The share that finds no slot where nobody waits."""
    blocked = 1.0
    for count in range(1, slots + 1):
        blocked = sessions * blocked / (count + sessions * blocked)
    return blocked


def erlang_c(sessions: float, slots: int) -> float:
    """The share that has to wait where nobody is refused."""
    blocked = erlang_b(sessions, slots)
    return blocked / (1 - sessions / slots * (1 - blocked))


@pytest.mark.parametrize(("sessions", "slots", "per_card"), [(8, 10, 1), (8, 10, 4), (30, 30, 8)])
def test_refusals_are_those_of_erlang_b(sessions, slots, per_card):
    result = simulate(Load(sessions, slots, per_card, patience=0.0), 30_000)
    expected = erlang_b(sessions, slots)
    assert result.refused_share == pytest.approx(expected, abs=0.01)
    assert result.utilisation == pytest.approx(sessions * (1 - expected) / slots, abs=0.01)
    assert max(result.waits) == 0


def test_waits_are_those_of_erlang_c():
    load = Load(8, 10)
    result = simulate(load, 60_000)
    waited = erlang_c(8, 10)
    assert result.refused == 0
    assert sum(wait > 0 for wait in result.waits) / len(result.waits) == pytest.approx(waited, abs=0.03)
    assert statistics.mean(result.waits) == pytest.approx(waited * load.length / (10 - 8), rel=0.15)
    later = waited * math.exp(-2 * 300 / load.length)  # the share that waits for more than 300 s
    assert sum(wait > 300 for wait in result.waits) / len(result.waits) == pytest.approx(later, abs=0.03)


def test_lost_cards_move_their_sessions_and_take_their_slots():
    load = Load(10, 40, 4, lifetime=1200.0, repair=400.0)
    result = simulate(load, 30_000)
    assert result.refused == 0
    assert result.interrupted_share == pytest.approx(600 / (600 + 1200), abs=0.02)  # a loss before the session's end
    assert result.utilisation == pytest.approx(10 / 40, abs=0.01)  # nothing is repeated, so the work stays the same
    more = simulate(Load(10, 40, 4, lifetime=1200.0, repair=400.0, repeated=120.0), 30_000)
    # Every repetition may be interrupted itself: the losses of a session of length L are L / lifetime in the mean.
    assert more.utilisation == pytest.approx(10 / 40 / (1 - 120 / 1200), abs=0.01)


def test_the_same_seed_gives_the_same_table(capsys):
    for _ in range(2):
        simulation.main(["--sessions", "10", "--arrivals", "1000", "--seed", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == lines[5:]
    assert [line.split("|")[2].strip() for line in lines[2:5]] == ["10", "14", "17"]
