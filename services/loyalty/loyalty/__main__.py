"""`python -m loyalty`."""

from chassis.command_line import main
from loyalty.wiring import SERVICE

if __name__ == "__main__":
    main(SERVICE)
