"""`python -m customer serve | migrate | republish | …`."""

from chassis.command_line import main
from customer.wiring import SERVICE

if __name__ == "__main__":
    main(SERVICE)
