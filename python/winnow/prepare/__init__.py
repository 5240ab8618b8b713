"""winnow-prepare: conversations to the calibration files that `winnow calibrate` reads."""

from winnow import __version__

__all__ = ["__version__"]
