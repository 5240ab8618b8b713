"""python -m winnow_prepare"""

import sys

from winnow_prepare.main import main

if __name__ == "__main__":
    sys.exit(main())
