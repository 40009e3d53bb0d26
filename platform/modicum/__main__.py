"""`python -m modicum`, as Ray jobs call it."""

from modicum.cli.main import main

if __name__ == "__main__":
    main()
