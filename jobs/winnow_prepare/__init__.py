"""winnow-prepare: conversations to the calibration files that `winnow calibrate` reads."""

__version__ = "0.1.0"
