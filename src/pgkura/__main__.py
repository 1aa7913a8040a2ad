"""`python -m pgkura` is the `pgkura` command. A worker process loads this file too, by another name: no verbs there."""

if __name__ == "__main__":
    from pgkura.cli.main import main

    main()
