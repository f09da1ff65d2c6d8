"""`python -m bclightning`, the same as `bcl`."""

from bclightning.cli.main import main

if __name__ == "__main__":
    main()
