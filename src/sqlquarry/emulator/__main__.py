"""``python -m sqlquarry.emulator``: the same as ``python -m sqlquarry.emulator.serve``."""

from sqlquarry.emulator.serve import main

main()
