"""`python -m pgkura` is the `pgkura` command."""

from pgkura.cli.main import main

if __name__ == "__main__":
    main()
