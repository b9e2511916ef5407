"""Set up the workspace: virtual environment, ROS 2 from wheels, colcon build.

Run through `make setup` or `./rl100 setup`. Needs only the standard library; a second run does
nothing but compare checksums. This file keeps to syntax that any Python 3 can read, so that an
old interpreter gets a sentence and not a traceback.
"""

import sys

OLDEST = (3, 10)

if sys.version_info < OLDEST:
    sys.stderr.write(
        "rl100 setup: Python {}.{} is too old; install Python 3.10 to 3.13, "
        "or name one with PYTHON=/path/to/python3.11.\n".format(*sys.version_info)
    )
    sys.exit(1)

from rl100_setup.main import main  # noqa: E402

sys.exit(main())
