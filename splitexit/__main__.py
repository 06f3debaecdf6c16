"""`python -m splitexit`."""

from splitexit.cli import main

if __name__ == "__main__":
    main()
