"""`python -m pipeline.cli` is `nightjar`."""

from pipeline.cli.app import main

if __name__ == "__main__":
    main()
