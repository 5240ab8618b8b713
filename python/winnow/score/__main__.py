"""python -m winnow.score"""

import sys

from winnow.score.main import main

sys.exit(main())
