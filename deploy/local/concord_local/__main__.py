"""`concord`, or `python -m concord_local`."""

from concord_local.cli import main

if __name__ == "__main__":
    main()
