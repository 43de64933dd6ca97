"""Settings of the customer master."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from chassis import config
from customer.domain.blind_index import KEY_BYTES_MIN
from customer.store.vault import KEY_BYTES


class Settings(config.Settings):
    """Beside those of every service: the key of the blind index, and the key store with its root key."""

    customer_index_key: str = Field(
        description=f"at least {2 * KEY_BYTES_MIN} hexadecimal digits, or the path of a file with them; the same for ever",
        repr=False,
    )

    customer_keys_url: str = Field(
        pattern=r"^postgres(ql)?://",
        description="postgresql://user:password@host:port/database of the key store, a database of its own",
    )
    customer_root_key: str = Field(
        description=f"{2 * KEY_BYTES} hexadecimal digits, or the path of a file with them; without it no record can be read",
        repr=False,
    )

    import_processes: int = Field(
        0, ge=0, le=64, description="processes that prepare rows of bulk imports, 0 (as many as there are cores) to 64"
    )

    @field_validator("customer_index_key", "customer_root_key")
    @classmethod
    def _hexadecimal(cls, value: str, info: ValidationInfo) -> str:
        digits = value
        try:
            if "/" in value:
                digits = Path(value).read_text(encoding="ascii").strip()
            count = len(bytes.fromhex(digits))
            right = count == KEY_BYTES if info.field_name == "customer_root_key" else count >= KEY_BYTES_MIN
        except (OSError, ValueError):
            right = False
        if not right:
            # The value itself must not show up in the message.
            raise ValueError("not so many hexadecimal digits, or no such file")
        return digits

    @property
    def index_key(self) -> bytes:
        """The key of the blind index."""
        return bytes.fromhex(self.customer_index_key)

    @property
    def root_key(self) -> bytes:
        """The key that wraps the institutions' keys."""
        return bytes.fromhex(self.customer_root_key)
