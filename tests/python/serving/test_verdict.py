"""Figures to a verdict, without an engine: which pattern it ran, and when that cannot be told."""

import numpy as np
import pytest

from winnow.common.errors import Failure
from winnow.serving.probe import make_probe
from winnow.serving.verdict import Ran, compare_texts, judge

TOLERANCE = 1e-4
N_BEFORE, N_PAST = 8, 40
PATTERNS = [Ran.HYBRID, Ran.FULL, Ran.WINDOWED, Ran.ONE_LESS, Ran.ONE_MORE]


def figures(scale=0.1, seed=0):
    """Token NLLs of each pattern: equal before the window, `scale` nats apart behind it."""
    random = np.random.default_rng(seed)
    base = random.uniform(1, 9, N_BEFORE + N_PAST)
    found = {}
    for ran in PATTERNS:
        found[ran] = base.copy()
        found[ran][N_BEFORE:] += scale * random.standard_normal(N_PAST)
    return found


def noise(size_nats, seed=1):
    return size_nats * np.random.default_rng(seed).standard_normal(N_BEFORE + N_PAST)


@pytest.mark.parametrize("ran", PATTERNS)
@pytest.mark.parametrize("scale", [0.1, 3e-3])
def test_an_engine_with_the_figures_of_a_pattern_ran_it(ran, scale):
    candidates = figures(scale)
    verdict = judge(candidates[ran] + noise(2e-5), candidates, N_BEFORE, TOLERANCE)
    assert verdict.ran is ran
    assert verdict.past[ran].rms < 4e-5 and verdict.before.rms < 4e-5
    assert all(gap > 2 * TOLERANCE for gap in verdict.apart.values()) and ran not in verdict.apart
    assert (verdict.reason == "") == (ran is Ran.HYBRID)


def test_figures_of_no_pattern_are_something_else():
    candidates = figures()
    other = candidates[Ran.HYBRID].copy()
    other[N_BEFORE:] += 0.01
    verdict = judge(other, candidates, N_BEFORE, TOLERANCE)
    assert verdict.ran is Ran.OTHER and "other windows" in verdict.reason and "hybrid" in verdict.reason


def test_what_differs_before_the_window_is_no_matter_of_windows():
    candidates = figures()
    shifted = candidates[Ran.HYBRID] + 0.01
    verdict = judge(shifted, candidates, N_BEFORE, TOLERANCE)
    assert verdict.ran is Ran.OTHER and "RoPE" in verdict.reason
    # Also where everything behind it fits.
    shifted[N_BEFORE:] = candidates[Ran.HYBRID][N_BEFORE:]
    assert judge(shifted, candidates, N_BEFORE, TOLERANCE).ran is Ran.OTHER


def test_patterns_within_twice_the_tolerance_cannot_be_told_apart():
    candidates = figures()
    candidates[Ran.ONE_LESS] = candidates[Ran.HYBRID] + 1.9 * TOLERANCE
    verdict = judge(candidates[Ran.HYBRID], candidates, N_BEFORE, TOLERANCE)
    assert verdict.ran is Ran.CANNOT_TELL and "window-minus-1" in verdict.reason
    assert "full" not in verdict.reason
    # It does not matter to an engine that ran a third pattern.
    assert judge(candidates[Ran.FULL], candidates, N_BEFORE, TOLERANCE).ran is Ran.FULL
    candidates[Ran.ONE_LESS][N_BEFORE:] = candidates[Ran.HYBRID][N_BEFORE:] + 2.1 * TOLERANCE
    assert judge(candidates[Ran.HYBRID], candidates, N_BEFORE, TOLERANCE).ran is Ran.HYBRID


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_figures_that_are_not_finite_are_something_else(wrong):
    candidates = figures()
    broken = candidates[Ran.HYBRID].copy()
    broken[-1] = wrong
    verdict = judge(broken, candidates, N_BEFORE, TOLERANCE)
    assert verdict.ran is Ran.OTHER and "finite" in verdict.reason


def test_a_pattern_without_windows_has_no_rival():
    candidates = {Ran.HYBRID: figures()[Ran.HYBRID]}
    assert judge(candidates[Ran.HYBRID], candidates, N_BEFORE, TOLERANCE).ran is Ran.HYBRID
    assert judge(candidates[Ran.HYBRID] + 1, candidates, N_BEFORE, TOLERANCE).ran is Ran.OTHER


def test_texts():
    same = compare_texts([5, 6, 7], [1.0, 1.0, 1.0], [5, 6, 7], TOLERANCE)
    assert same.is_same and (same.equal, same.is_tie) == (3, False)
    other = compare_texts([5, 9, 7], [1.0, 1.0, 1.0], [5, 6, 7], TOLERANCE)
    assert not other.is_same and other.equal == 1
    tie = compare_texts([5, 9, 8], [1.0, TOLERANCE, 1.0], [5, 6, 7], TOLERANCE)
    assert tie.is_same and (tie.equal, tie.is_tie) == (1, True)
    short = compare_texts([5], [1.0], [5, 6], TOLERANCE)
    assert not short.is_same and short.equal == 1


@pytest.mark.parametrize("window", [1, 5, 40, 2048])
def test_the_sequence_repeats_what_lies_at_the_window_s_end(window):
    probe = make_probe(1000, window, window, 10**6, None)
    assert len(probe.tokens) == window + min(max(window, 64), 256)
    assert all(100 <= token < 500 for token in probe.tokens)
    # The row that predicts token t has t keys: all of them while t <= W - 1, whatever the candidate.
    assert probe.first + probe.n_before == max(window, 1) and probe.first >= 1
    assert probe.n_scored == len(probe.tokens) - probe.first
    middle = window + 1 + (len(probe.tokens) - window - 1) // 2
    for place in range(window + 1, len(probe.tokens)):
        assert probe.tokens[place] == probe.tokens[place - window - (place >= middle)]
    assert make_probe(1000, window, window, 10**6, None) == probe


def test_a_sequence_that_no_window_cuts_is_refused():
    with pytest.raises(Failure, match="do not reach past the window of 64 keys"):
        make_probe(1000, 64, 64, 10**6, 64)
    with pytest.raises(Failure, match="the model has 64 positions"):
        make_probe(1000, 64, 64, 64, None)
    with pytest.raises(Failure, match="the model has 512 positions"):
        make_probe(1000, 64, 64, 512, 513)


def test_windows_of_the_model_itself_are_reached_too():
    probe = make_probe(1000, 20, 40, 10**6, None)
    assert len(probe.tokens) == 40 + 64 and probe.first + probe.n_before == 20
    assert make_probe(1000, 40, 40, 10**6, None).first > 1
    with pytest.raises(Failure, match="past the window of 40 keys"):
        make_probe(1000, 20, 40, 10**6, 43)
