"""python -m winnow.serving"""

import sys

from winnow.serving.main import main

if __name__ == "__main__":
    sys.exit(main())
