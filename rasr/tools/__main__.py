"""`python -m rasr.tools NAME key=value`."""

import sys

from rasr.tools import run

if __name__ == "__main__":
    run(sys.argv[1:])
