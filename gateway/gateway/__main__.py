"""`python -m gateway serve | openapi [--check]`."""

import argparse
import sys

import uvloop

from chassis import config
from gateway import contracts, openapi, wiring
from gateway.config import Settings


def main() -> int:
    """Runs a command; answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Concord's gateway: HTTP and JSON to gRPC.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve HTTP until a signal ends it; settings are CONCORD_… variables")
    document = commands.add_parser("openapi", help=f"write {openapi.FILE.name} from the contracts")
    document.add_argument("--check", action="store_true", help="write nothing; fail when the file is not what the contracts say")
    arguments = parser.parse_args()
    if arguments.command == "serve":
        uvloop.run(wiring.serve(config.load(Settings)))
        return 0
    return _openapi(arguments.check)


def _openapi(check_only: bool) -> int:
    try:
        wanted = openapi.document_text(contracts.installed())
    except contracts.ContractError as error:
        sys.stderr.write(f"The contracts cannot be served: {error}\n")
        return 1
    if not check_only:
        openapi.FILE.write_text(wanted, encoding="utf-8")
        return 0
    if openapi.FILE.exists() and openapi.FILE.read_text(encoding="utf-8") == wanted:
        return 0
    sys.stderr.write("gateway/openapi.json is not what the contracts say: run `.venv/bin/python -m gateway openapi`\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
