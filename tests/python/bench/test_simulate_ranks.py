"""The scripts of tests/bench that compute something themselves, against cases worked out by hand."""

import subprocess
import sys

import launch
import pytest

BENCH = launch.REPOSITORY / "tests" / "bench"
sys.path.insert(0, str(BENCH))
import simulate_ranks  # noqa: E402
from simulate_ranks import Costs  # noqa: E402

FREE = Costs(start=1.0, message=0.0, poll=0.0)


def test_units_go_longest_first_to_who_is_free():
    # Rank 0: 5, then 3; rank 1: 4, then 3; all after a start of 1.
    end, busy = simulate_ranks.play([5, 4, 3, 3], 2, FREE)
    assert (end, busy) == (9.0, 0.0)
    assert simulate_ranks.play([5, 4, 3, 3], 9, FREE)[0] == 6.0
    assert simulate_ranks.play([5, 4, 3, 3], 1, FREE)[0] == 16.0


def test_rank_0_answers_one_message_at_a_time():
    # Half a second a message. Rank 1 asks at 1, has its 4 from 1.5 to 5.5, and is answered on "done" and "what next" at
    # 6.5; rank 0 asks nobody, and is free at 6 for the first 3; rank 1's lasts from 6.5 to 9.5.
    end, busy = simulate_ranks.play([5, 4, 3, 3], 2, Costs(start=1.0, message=0.5, poll=0.0))
    assert (end, busy) == (9.5, 1.5)
    # Two ranks that ask at once wait for each other: 1.5 and 2.0, and then 4 each.
    assert simulate_ranks.play([1, 4, 4], 3, Costs(start=1.0, message=0.5, poll=0.0))[0] == 6.0
    # A server that sleeps before it sees a message is late by that.
    assert simulate_ranks.play([1, 4], 2, Costs(start=1.0, message=0.5, poll=0.25))[0] == 5.75


def test_examples_that_end_last_are_cut():
    # Two of 10 on three ranks, a fifth of each the base: in four groups each takes 10 * (0.2 + 0.8 / 4) = 4, eight on
    # three ranks end at 12; in three 10 * (0.2 + 0.8 / 3) = 4.67, two rounds, 9.33; whole, 10.
    costs = Costs(base_share=0.2, lanes=8)
    units = simulate_ranks.plan([10.0, 10.0], 3, costs)
    assert {unit.groups for unit in units} == {3}
    assert simulate_ranks.makespan(units, 3)[0] == pytest.approx(2 * 10 * (0.2 + 0.8 / 3))
    # What has one lane stays whole, and so does what comes out even.
    assert len(simulate_ranks.plan([10.0, 10.0], 3, Costs(base_share=0.2, lanes=1))) == 2
    assert len(simulate_ranks.plan([10.0] * 9, 3, costs)) == 9


def test_says_what_limits():
    long_start = simulate_ranks.simulate([1.0] * 64, 64, Costs(start=10.0, message=0.0, poll=0.0))
    assert long_start.end == 11.0 and long_start.share == pytest.approx(1 / 11) and long_start.reason == "the start"
    few = simulate_ranks.simulate([1.0] * 8, 64, Costs(start=0.01, lanes=1))
    assert few.reason == "units too few or too long"
    many = simulate_ranks.simulate([0.001] * 4096, 512, Costs(message=0.001))
    assert many.reason == "rank 0's answers"
    assert simulate_ranks.simulate([1.0] * 4, 2, Costs(message=0.0, poll=0.0)).reason == "nothing much"


def test_reads_a_table_of_units(tmp_path):
    (tmp_path / "units.txt").write_text("5\n4\n3\n3\n")
    command = [sys.executable, BENCH / "simulate_ranks.py", "--units", tmp_path / "units.txt", "--ranks", "2"]
    done = subprocess.run([*command, "--start", "1", "--message", "0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1].split()
    # The server's sleep before rank 1's second unit is what is beyond 9; its first had one, too.
    assert row[:2] == ["2", "4"] and 9.0 <= float(row[3]) <= 9.001
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "--start" in refused.stderr
