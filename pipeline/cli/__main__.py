"""Entry point of `python -m pipeline.cli`, the same as `nightjar`."""

from pipeline.cli.app import main

if __name__ == "__main__":
    main()
