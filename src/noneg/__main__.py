"""`python -m noneg` is `noneg`."""

import sys

from noneg.cli import main

sys.exit(main())
