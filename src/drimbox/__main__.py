"""``python -m drimbox``."""

from drimbox.cli import main

main()
