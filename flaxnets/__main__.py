"""`python -m flaxnets` is the command `flaxnets`."""

import sys

from flaxnets.cli import main

sys.exit(main())
