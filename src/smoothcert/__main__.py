"""`python -m smoothcert`, also under torchrun."""

from smoothcert.cli.main import main

if __name__ == "__main__":
    main()
