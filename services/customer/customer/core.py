"""What the parts of the customer master share; made once, in the wiring."""

from dataclasses import dataclass
from typing import Protocol

from chassis.database import Database
from customer.domain.blind_index import BlindIndex
from customer.domain.match_model import Model
from customer.store.audit import AuditTrail
from customer.store.policies import Policies
from customer.store.vault import Vault
from customer.store.viewers import Viewers


class Models(Protocol):
    """Knows the match model in force."""

    def current(self) -> Model:
        """The model to decide with."""
        ...


@dataclass(frozen=True, slots=True)
class Core:
    """The database with what reads, matches and believes its records."""

    database: Database
    viewers: Viewers
    index: BlindIndex
    vault: Vault
    models: Models
    policies: Policies
    audit: AuditTrail
