"""Settings of the customer master."""

from pathlib import Path

from pydantic import Field, field_validator

from chassis import config
from customer.domain.blind_index import KEY_BYTES_MIN


class Settings(config.Settings):
    """Beside those of every service: the key of the blind index."""

    customer_index_key: str = Field(
        description=f"at least {2 * KEY_BYTES_MIN} hexadecimal digits, or the path of a file with them; the same for ever",
        repr=False,
    )

    @field_validator("customer_index_key")
    @classmethod
    def _hexadecimal(cls, value: str) -> str:
        digits = value
        try:
            if "/" in value:
                digits = Path(value).read_text(encoding="ascii").strip()
            long_enough = len(bytes.fromhex(digits)) >= KEY_BYTES_MIN
        except (OSError, ValueError):
            long_enough = False
        if not long_enough:
            # The value itself must not show up in the message.
            raise ValueError("not enough hexadecimal digits, or no such file")
        return digits

    @property
    def index_key(self) -> bytes:
        """The key of the blind index."""
        return bytes.fromhex(self.customer_index_key)
