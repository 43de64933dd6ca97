"""`python -m rating`."""

from chassis.command_line import main
from rating.wiring import SERVICE

if __name__ == "__main__":
    main(SERVICE)
