"""python -m winnow.report."""

import sys

from winnow.common.errors import ExitCode

try:
    from winnow.report.command_line import main
except ImportError as error:
    words = " ".join(str(error).split())
    print(f"winnow: a package that winnow-report needs does not load in {sys.executable}: {words}", file=sys.stderr)
    sys.exit(ExitCode.UNAVAILABLE)

sys.exit(main())
