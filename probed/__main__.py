"""``python -m probed``: the same as the command ``probed``."""

from probed.cli import main

if __name__ == "__main__":
    main()
