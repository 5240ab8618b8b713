"""What every Python test needs: the executable."""

import launch
import pytest


def pytest_configure():
    if not launch.WINNOW.exists():
        pytest.exit(f"there is no {launch.WINNOW}: run make build, or set WINNOW_BUILD to a build folder", returncode=1)
