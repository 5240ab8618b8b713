"""python -m winnow_report."""

import sys

from .command_line import main

sys.exit(main())
