"""`python -m contact serve | migrate | republish | rebuild | dead-letters`."""

from chassis.command_line import main
from contact.wiring import SERVICE

if __name__ == "__main__":
    main(SERVICE)
