"""`python -m customer serve | migrate | republish | … | train`."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:  # offline: needs no settings and no database
        from customer.training import command

        command.main(sys.argv[2:])
    else:
        from chassis.command_line import main
        from customer.wiring import SERVICE

        main(SERVICE)
