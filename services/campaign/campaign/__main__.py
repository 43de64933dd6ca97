"""`python -m campaign serve | migrate | republish | rebuild | dead-letters`."""

from campaign.wiring import SERVICE
from chassis.command_line import main

if __name__ == "__main__":
    main(SERVICE)
