"""`concord`, or `python -m concord_local`."""


def main() -> None:
    """Entry point of the `concord` command."""


if __name__ == "__main__":
    main()
