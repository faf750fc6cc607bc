"""``python -m sqlquarry.emulator``: the same as ``python -m sqlquarry.emulator.serve``."""

from sqlquarry.emulator.serve import main

if __name__ == "__main__":
    main()
