"""``python -m probed.docs [--check]``."""

import sys

from probed.docs import main

sys.exit(main(sys.argv[1:]))
