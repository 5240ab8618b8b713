"""What every Python test needs: the executable, and an end for a test that hangs."""

import contextlib
import signal

import launch
import pytest

HANG_SECONDS = 1800  # of a test's set-up, of the test, and of what comes after it: nothing but a hang takes so long


def pytest_configure():
    if not launch.WINNOW.exists():
        pytest.exit(f"there is no {launch.WINNOW}: run make build, or set WINNOW_BUILD to a build folder", returncode=1)


@contextlib.contextmanager
def limit():
    def end(*_):
        pytest.fail(f"it has not ended after {HANG_SECONDS} s: it hangs")

    former = signal.signal(signal.SIGALRM, end)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with limit():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with limit():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    with limit():
        return (yield)
