"""`python -m repvgg` is the command `repvgg`."""

from repvgg.cli import main

main()
