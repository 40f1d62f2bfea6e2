"""`python -m cli` is `shipway`."""

from cli.main import main

main()
