"""`python -m msgtrace` is the `msgtrace` command."""

from msgtrace.cli.main import main

if __name__ == "__main__":
    main()
