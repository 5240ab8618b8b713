"""The former name of winnow.report, for scripts that import it."""

import runpy
import sys

import winnow.report

if __name__ == "__main__":
    runpy.run_module("winnow.report", run_name="__main__", alter_sys=True)
sys.modules[__name__] = winnow.report
