"""`python -m prefrm` is the command `prefrm`."""

from prefrm.cli import main

if __name__ == "__main__":
    main()
