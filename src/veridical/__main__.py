"""`python -m veridical` is the `veridical` command."""

from veridical.cli import main

if __name__ == "__main__":
    main()
