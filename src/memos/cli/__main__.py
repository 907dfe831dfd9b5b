"""`python -m memos.cli`: the console script where it is not on the path."""

from memos.cli.main import main

main()
