"""What many ranks would make of a run: the scheduler's rules, played with measured times of units.

    python3 tests/bench/simulate_ranks.py RUN_DIR [--ranks 8,64,512] [--times 8]
    python3 tests/bench/simulate_ranks.py --units units.txt --start 3.0

Times come from the shards of a run directory, or from a file with a number of seconds a line. The start, from the
process to its first unit, comes from the run's profile (`winnow calibrate --profile`), or from --start. --times N: N
such data sets one after another, as a large machine would have more to do.

The rules are those of pipeline/run/plan.cc and pipeline/runtime/dispatch.cc: units are handed out longest first, to
who asks; an example that would end last is cut into groups of lanes, each of which runs the base again, where that
brings the end nearer; rank 0 answers one message at a time, and is asleep for up to half a millisecond before one. A
rank sends two messages a unit: done, and what next. Ranks are equally fast, and start together.

For each number of ranks: the end of the last unit, the share of the ranks' time that is work, and what the rest is:
what the end would gain without the start, without rank 0's answers, and with units that could be cut as fine as one
likes.
"""

import argparse
import heapq
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

POLL_SECONDS = 250e-6  # the mean time that the server sleeps before it sees a message
GROUPS = (2, 3, 4, 6, 8, 12, 16)
WORTH_IT = 0.99


@dataclass(frozen=True)
class Costs:
    """Seconds. base_share: of a whole unit, what the base takes, which every group of its lanes runs again."""

    start: float = 0.0
    message: float = 20e-6
    poll: float = POLL_SECONDS
    base_share: float = 0.1
    lanes: int = 1


@dataclass(frozen=True)
class Unit:
    """A group of an example's lanes; `groups`: into how many it is cut."""

    example: int
    seconds: float
    groups: int = 1

    def cut(self, groups, costs):
        share = costs.base_share + (1 - costs.base_share) / groups
        return [Unit(self.example, self.seconds * share, groups)] * groups


def play(seconds, ranks, costs):
    """(end of the last unit, seconds that rank 0's server was busy); seconds: of the units, as they are handed out.

    Rank 0 takes its units without a message.
    """
    free = [(costs.start, rank) for rank in range(ranks)]
    heapq.heapify(free)
    server_free, busy, end = 0.0, 0.0, costs.start
    for duration in seconds:
        now, rank = heapq.heappop(free)
        if rank > 0:
            # "Done" comes before the question, but after the first start: both wait their turn.
            messages = 1 if now == costs.start else 2
            asleep = costs.poll if server_free <= now else 0.0
            server_free = max(now, server_free) + asleep + messages * costs.message
            busy += messages * costs.message
            now = server_free
        heapq.heappush(free, (now + duration, rank))
        end = max(end, now + duration)
    return end, busy


def makespan(units, ranks):
    """The planner's own view: no start, no messages."""
    free = [0.0] * ranks
    end, last = 0.0, None
    for unit in units:
        finish = heapq.heappop(free) + unit.seconds
        heapq.heappush(free, finish)
        if finish > end:
            end, last = finish, unit
    return end, last


def ordered(by_example):
    return sorted((u for units in by_example.values() for u in units), key=lambda u: (-u.seconds, u.example))


def last_examples(units, most):
    found = []
    for unit in reversed(units):
        if unit.example not in found:
            found.append(unit.example)
        if len(found) == most:
            break
    return found


def plan(seconds, ranks, costs):
    """Units in the order of handing out: examples whole, but for those whose cutting brings the end nearer."""
    whole = {e: Unit(e, s) for e, s in enumerate(seconds)}
    parts = {e: [u] for e, u in whole.items()}
    best = ordered(parts)
    if ranks == 1:
        return best
    most = min(costs.lanes, 2 * ranks)
    for _ in range(4 * ranks + 16):
        end, last = makespan(best, ranks)
        if end <= sum(seconds) / ranks / WORTH_IT:
            break
        wanted = end * WORTH_IT
        now = parts[last.example][0].groups
        tries = [
            {**parts, last.example: whole[last.example].cut(g, costs)} for g in (now + 1, 2 * now, 4 * now) if g <= most
        ]
        found = next((t for t in tries if makespan(ordered(t), ranks)[0] < wanted), None)
        if found is None:
            candidates = []
            for groups in (g for g in GROUPS if g <= most):
                trial = dict(parts)
                for k, example in enumerate(last_examples(best, ranks), 1):
                    if groups > trial[example][0].groups:
                        trial[example] = whole[example].cut(groups, costs)
                    if k <= 16 or k & (k - 1) == 0:
                        candidates.append((makespan(ordered(trial), ranks)[0], len(candidates), dict(trial)))
            end, _, found = min(candidates, default=(math.inf, 0, None))
            if end >= wanted:
                break
        parts = found
        best = ordered(parts)
    return best


@dataclass(frozen=True)
class Outcome:
    ranks: int
    units: int
    end: float
    work: float
    longest: float
    server_busy: float
    gains: dict

    @property
    def share(self):
        return self.work / (self.ranks * self.end)

    @property
    def reason(self):
        """What costs most of what is lost."""
        name, gain = max(self.gains.items(), key=lambda item: item[1])
        return name if gain > 0.02 * self.end else "nothing much"


def simulate(seconds, ranks, costs):
    units = plan(seconds, ranks, costs)
    times = [unit.seconds for unit in units]
    end, busy = play(times, ranks, costs)
    work = sum(seconds)
    gains = {
        "the start": end - play(times, ranks, replace(costs, start=0.0))[0],
        "rank 0's answers": end - play(times, ranks, replace(costs, message=0.0, poll=0.0))[0],
        "units too few or too long": makespan(units, ranks)[0] - work / ranks,
    }
    return Outcome(ranks, len(units), end, work, max(times), busy, gains)


def measured_units(run_directory):
    """(seconds of each example, layers measured, rows of the tail or None, start in seconds or None) of a run."""
    import h5py

    seconds, lanes = {}, 1
    for path in sorted((run_directory / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            key = (path.name.split(".e")[0], int(file.attrs["example"]))
            seconds[key] = seconds.get(key, 0.0) + float(file.attrs["seconds"])
            lanes = max(lanes, file["variant"].shape[0] - 1 if "variant" in file else 1)
    if not seconds:
        sys.exit(f"{run_directory}: no shards")
    record = json.loads((run_directory / "run.json").read_text())
    start = None
    runs = record["informative"].get("runs")
    timeline = runs[-1].get("profile", {}).get("timeline") if runs else None
    if timeline:
        after = (
            "first_unit",
            "measuring",
            "asking",
            "last_units",
            "sums",
            "profile",
            "statistics",
            "results",
            "teardown",
        )
        start = sum(max(part["seconds"]) for part in timeline["parts"] if part["name"] not in after)
    return list(seconds.values()), lanes, record["identity"].get("tail_rows"), start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="run directory")
    parser.add_argument("--units", type=Path, help="seconds of units, one a line, in place of a run")
    parser.add_argument("--ranks", default="8,64,512")
    parser.add_argument("--start", type=float, help="seconds from the process to its first unit")
    parser.add_argument("--message", type=float, default=Costs.message, help="seconds that an answer takes rank 0")
    parser.add_argument("--lanes", type=int, help="lanes of an example: how fine it can be cut")
    parser.add_argument("--base-share", type=float, help="share of a unit that the base takes; default: by the lanes")
    parser.add_argument("--times", type=int, default=1, help="so many data sets")
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.units is None):
        parser.error("give a run directory or --units")
    lanes, tail_rows, start = 1, None, None
    if arguments.run:
        seconds, lanes, tail_rows, start = measured_units(arguments.run)
    else:
        seconds = [float(line) for line in arguments.units.read_text().split()]
    start = arguments.start if arguments.start is not None else start
    if start is None:
        parser.error("the run has no profile: give --start")
    lanes = arguments.lanes or lanes
    # L layers, of which lane l lives through L - l: the base is one of 1 + (L + 1) / 2. A tail's lanes are short.
    base_share = arguments.base_share
    if base_share is None:
        base_share = 0.67 if tail_rows is not None else 2 / (lanes + 3)
    costs = Costs(start=start, message=arguments.message, base_share=base_share, lanes=lanes)
    seconds = seconds * arguments.times
    print(
        f"{len(seconds)} examples, {sum(seconds):.2f} s of work, the longest {max(seconds):.3f} s; "
        f"up to {lanes} lanes, base {100 * base_share:.0f} %; start {start:.2f} s; "
        f"{1e6 * costs.message:.0f} us a message"
    )
    print("ranks  units   longest s      end s   as fast    work  limited by")
    for ranks in map(int, arguments.ranks.split(",")):
        outcome = simulate(seconds, ranks, costs)
        one = start + sum(seconds)
        print(
            f"{ranks:5d} {outcome.units:6d} {outcome.longest:11.3f} {outcome.end:10.3f} {one / outcome.end:8.2f}x "
            f"{100 * outcome.share:6.1f}%  {outcome.reason} ("
            + ", ".join(f"{name} {gain:.2f} s" for name, gain in outcome.gains.items())
            + ")"
        )


if __name__ == "__main__":
    main()
