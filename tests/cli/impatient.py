"""The command line, whose workers have no time beside that of their connections."""

import sys

from picows.cli import main, workers

workers.STOP_GRACE = 0.0

if __name__ == "__main__":
    sys.exit(main())
