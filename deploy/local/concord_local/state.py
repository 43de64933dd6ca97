"""The state folder: what the local platform keeps from one start to the next. Passwords and keys are made here."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, OKPKey

from concord_local import system
from concord_local.nats import password

IDENTITY_ALGORITHM = "Ed25519"
ISSUER_ALGORITHM = "ES256"
KEY_BYTES = 32


def project() -> Path:
    """The checkout this package is installed from, or else the working directory."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "protos").is_dir() else Path.cwd()


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the state is kept: CONCORD_STATE, or `.concord` in the project.

    As root, PostgreSQL runs as `nobody`. Where that account cannot enter the project (below a private home, for instance),
    the state is in /var/lib/concord instead; nobody's door is never opened by changing the rights of a folder of yours.
    """
    if chosen := environment.get("CONCORD_STATE"):
        return Path(chosen).absolute()
    beside = project() / ".concord"
    if system.unprivileged().reaches(beside):
        return beside
    return Path("/var/lib/concord") / hashlib.sha256(str(project()).encode()).hexdigest()[:8]


class State:
    """The folder and what is in it. Only the supervisor, which holds the lock, starts and stops things."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_path = folder / "lock"
        self.logs = folder / "logs"
        self.keys = folder / "keys"

    def make(self) -> None:
        """Makes the folders; others may pass through the first one (PostgreSQL as `nobody` must), but see nothing.

        Raises:
            system.Trouble: a folder cannot be made.
        """
        for path in (self.folder, self.logs, self.keys, self.folder / "run"):
            try:
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o700 if path in (self.logs, self.keys) else 0o711)
            except OSError as why:
                right = "set CONCORD_STATE to a folder that can be made and written to"
                raise system.Trouble(f"{path}, for data and logs, cannot be made ({why.strerror}): {right}") from why

    def log(self, program: str) -> Path:
        """The log of a program."""
        return self.logs / f"{program}.log"

    def run_folder(self, program: str) -> Path:
        """The empty folder a program works in, by which it is found again when it outlived its supervisor."""
        return self.folder / "run" / program

    # ---- what is generated once

    def passwords(self, names: Iterable[str]) -> dict[str, str]:
        """One password for each name; the same ones every time."""
        return self._kept("passwords.json", dict.fromkeys(names, password))

    def ports(self, names: Iterable[str], anew: bool = False) -> dict[str, int]:
        """One port for each name, the same ones every time; with `anew`, those that are taken meanwhile are replaced."""
        kept = self._read("ports.json")
        if anew:
            kept = {name: port for name, port in kept.items() if system.is_free(port)}
        ports = dict(kept)
        for name in names:
            if name not in ports:
                ports[name] = system.free_port(ports.values())
        if ports != kept or anew:
            self._write("ports.json", ports)
        return ports

    def make_keys(self, names: Iterable[str]) -> None:
        """The key pairs of the gateway and the services, the set of their public keys, and the token issuer's keys."""
        public = []
        for name in names:
            if not self.private_key(name).exists():
                key = OKPKey.generate_key("Ed25519", {"kid": name, "alg": IDENTITY_ALGORITHM, "use": "sig"})
                system.write_private(self.private_key(name), json.dumps(key.as_dict(private=True)))
            public.append(OKPKey.import_key(json.loads(self.private_key(name).read_text())).as_dict(private=False))
        system.write_private(self.identities, json.dumps({"keys": public}))
        if not self.private_key("issuer").exists():
            signer = ECKey.generate_key("P-256", {"kid": "issuer-1", "alg": ISSUER_ALGORITHM, "use": "sig"})
            system.write_private(self.private_key("issuer"), json.dumps(signer.as_dict(private=True)))
        for path in (self.index_key, self.root_key):
            if not path.exists():
                system.write_private(path, secrets.token_hex(KEY_BYTES))
        issuer = ECKey.import_key(json.loads(self.private_key("issuer").read_text()))
        system.write_private(self.issuer_keys, json.dumps({"keys": [issuer.as_dict(private=False)]}))

    def private_key(self, name: str) -> Path:
        """The file with the private key of the gateway, a service or the issuer, as a JSON Web Key."""
        return self.keys / f"{name}.json"

    @property
    def index_key(self) -> Path:
        """The file with the key of the customer master's search keys; without it nothing that is stored is found again."""
        return self.keys / "customer-index.hex"

    @property
    def root_key(self) -> Path:
        """The file with the key that wraps the customer master's data keys; without it no record can be read."""
        return self.keys / "customer-root.hex"

    @property
    def identities(self) -> Path:
        """The file with the public keys of the gateway and every service."""
        return self.keys / "identities.json"

    @property
    def issuer_keys(self) -> Path:
        """The file with the token issuer's public keys."""
        return self.keys / "issuer.public.json"

    @property
    def issuers(self) -> Path:
        """The file that tells the gateway which issuers it trusts, and for whom."""
        return self.folder / "issuers.json"

    @property
    def clients(self) -> Path:
        """The file with the OAuth clients that the issuer knows."""
        return self.folder / "clients.json"

    # ---- what the supervisor tells

    def is_running(self) -> bool:
        """Whether a supervisor holds the lock."""
        if not self.lock_path.exists():
            return False
        held = system.lock(self.lock_path)
        if held is None:
            return True
        os.close(held)
        return False

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Tells what runs; readers see the old or the new, never half of it."""
        self._write("status.json", status)

    def status(self) -> dict[str, Any]:
        """What the supervisor told last; says nothing about whether it still lives (see `is_running`)."""
        return self._read("status.json")

    # ---- inside

    def _kept(self, file: str, makers: Mapping[str, Any]) -> dict[str, str]:
        kept = self._read(file)
        missing = {name: make() for name, make in makers.items() if name not in kept}
        if missing:
            self._write(file, {**kept, **missing})
        return {**kept, **missing}

    def _read(self, file: str) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / file).read_text())
        except FileNotFoundError:
            return {}
        return dict(content)

    def _write(self, file: str, content: Mapping[str, Any]) -> None:
        system.write_private(self.folder / file, json.dumps(content, indent=1))
