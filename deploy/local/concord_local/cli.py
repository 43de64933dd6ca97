"""The `concord` command."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from typing import Any

import click
from rich.console import Console

from concord_local import control, display, system, tokens
from concord_local import state as states
from concord_local.stack import AUDIENCE, CALLER_KINDS, SERVICES, Stack

EXIT_NOT_RUNNING = 3
EXIT_NOT_WELL = 1
PROGRAMS = (*SERVICES, "gateway", "issuer", "postgres", "nats", "supervisor", *(f"{service}-migrate" for service in SERVICES))
# A service's `rebuild` says in these words who must publish again, and for which run.
OWNER_TO_REPUBLISH = re.compile(r"python -m (\w+) republish --to \w+ --run ([\w-]+)")
ISSUED_BY_COMMAND = "concord-command"
# As the gateway wants them in a token: a wrong one is said here, where it was typed.
INSTITUTION = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")
CUSTOMER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
console = Console(highlight=False)


class Plugged(click.Group):
    """A group with commands of other modules, which are imported only when they are called."""

    modules: dict[str, str] = {}  # noqa: RUF012 - set once for each group below

    def list_commands(self, context: click.Context) -> list[str]:
        """The names of the commands, those in modules included."""
        there = [name for name, module in self.modules.items() if importlib.util.find_spec(module)]
        return sorted([*super().list_commands(context), *there])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command with a name; a plugged one is the object of its own name in its module."""
        module = self.modules.get(name)
        if module and importlib.util.find_spec(module):
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        return super().get_command(context, name)

    def invoke(self, context: click.Context) -> Any:
        """Runs the command; what is wrong with the machine or a setting is one line, not a stack."""
        try:
            return super().invoke(context)
        except (system.Trouble, PermissionError) as why:
            raise click.ClickException(str(why)) from why


class TopLevel(Plugged):
    """The commands of the demonstration and of the real data are in modules of their own."""

    modules = {"demo": "concord_local.demo"}  # noqa: RUF012


class Loaders(Plugged):
    """One module for each kind of real data."""

    modules = {  # noqa: RUF012
        "berka": "concord_local.berka",
        "customers": "concord_local.customers",
        "screening": "concord_local.screening_lists",
    }


@click.group(cls=TopLevel, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Runs Concord on this machine: PostgreSQL, NATS, five services and the gateway.

    \b
    A first look:
      concord up --detach          start everything and return when it is ready
      concord demo                 load a demonstration alliance
      concord status               what runs, where, and how well
      curl -s -H "Authorization: Bearer $(concord token --kind operator)" localhost:8080/v1/institutions
      concord down                 stop everything; the data stays

    The data, logs, passwords and keys are in the folder that `concord status` names; delete it while nothing runs to begin anew.

    \b
    Settings (environment):
      CONCORD_HTTP_LISTEN             where the gateway listens, 127.0.0.1:8080
      CONCORD_STATE                   the folder for data and logs, .concord in the project
      CONCORD_<SERVICE>_DATABASE_URL  use these databases (all five: customer, rating, campaign, contact, loyalty)
      CONCORD_CUSTOMER_KEYS_URL       and with them this one, for the keys of the customer master
      CONCORD_NATS_URL                use this NATS server
      CONCORD_LOG_LEVEL, CONCORD_TRACE_RATIO, OTEL_EXPORTER_OTLP_ENDPOINT and the services' own are passed on
    """


@main.group(cls=Loaders)
def load() -> None:
    """Load real data through the gateway."""


@main.command()
@click.option("--detach", "-d", is_flag=True, help="Return when the platform is ready; `concord down` stops it.")
def up(detach: bool) -> None:
    """Start the platform. Without --detach it runs until Ctrl-C."""
    state = states.State(states.directory())
    seconds = None
    if not state.is_running():
        supervisor = control.launch(state, detach)
        with display.starting(console) as show:
            seconds = control.follow(supervisor, state, show)
    if seconds is None:
        control.wait_until_ready(state)
        console.print(f"Concord runs already: {Stack(state).load().gateway_url}")
        return
    stack = Stack(state).load()
    console.print(f"[bold green]Concord is ready[/] after {seconds:.1f} s.")
    console.print(f"  gateway   {stack.gateway_url}   (try {stack.gateway_url}/docs)\n  issuer    {stack.issuer_url}")
    console.print(f"  data      {state.folder}\n  next      concord status · concord demo · concord token --help · concord down")
    if not detach:
        console.print("Ctrl-C stops it.")
        sys.exit(control.wait(supervisor))


@main.command()
def down() -> None:
    """Stop the platform; its data stays."""
    state = states.State(states.directory())
    if not state.is_running():
        console.print("Concord does not run.")
        return
    with console.status("stopping"):
        seconds = control.stop(state)
    console.print(f"Concord is stopped after {seconds:.1f} s. Its data stays in {state.folder}.", soft_wrap=True)


@main.command()
def status() -> None:
    """What runs, where, and how well. Exit status: 0 all is well, 1 something is not, 3 nothing runs."""
    state = states.State(states.directory())
    if not state.is_running():
        console.print(f"Concord does not run (its data: {state.folder}). Start it with `concord up --detach`.", soft_wrap=True)
        sys.exit(EXIT_NOT_RUNNING)
    told = state.status()
    console.print(display.status_table(told))
    console.print(f"state and logs: {state.folder}", soft_wrap=True)
    for trouble in display.troubles(told):
        console.print(trouble, style="red", markup=False, soft_wrap=True)
    sys.exit(0 if control.is_well(told) else EXIT_NOT_WELL)


@main.command()
@click.argument("program", type=click.Choice(PROGRAMS), metavar="SERVICE")
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines as they come, until Ctrl-C.")
@click.option("--lines", "-n", default=50, show_default=True, type=click.IntRange(1), help="How many of the last lines.")
def logs(program: str, follow: bool, lines: int) -> None:
    """Show the log of a service, or of gateway, issuer, postgres, nats, supervisor, SERVICE-migrate."""
    path = states.State(states.directory()).log(program)
    if not path.exists():
        raise click.ClickException(f"{program} has not run yet: there is no {path}")
    try:
        for line in display.tail(path, lines, follow):
            click.echo(line, nl=False)
    except KeyboardInterrupt:
        return


@main.command()
@click.option("--kind", type=click.Choice(CALLER_KINDS), default="channel", show_default=True, help="Who calls.")
@click.option("--institution", help="The institution the caller acts for, such as bank-a. Needed unless the kind is operator.")
@click.option("--scope", "scopes", multiple=True, help="What the token allows, such as customer.read; may be repeated. Default: all of the kind's.")  # fmt: skip # noqa: E501
@click.option("--role", "roles", multiple=True, help="A role of a staff member, such as approver; may be repeated.")
@click.option("--customer", help="Bind the token to one customer, as a mobile bank does after login.")
@click.option("--subject", help="The person or system; default: the client.")
@click.option("--client", default=ISSUED_BY_COMMAND, show_default=True, help="The client's id.")
@click.option("--ttl", default=tokens.TTL_SECONDS, show_default=True, type=click.IntRange(1, tokens.TTL_SECONDS_MAX), help="Seconds the token is valid.")  # fmt: skip # noqa: E501
def token(kind: str, institution: str | None, scopes: tuple[str, ...], roles: tuple[str, ...], customer: str | None,
          subject: str | None, client: str, ttl: int) -> None:  # fmt: skip
    """Print an access token, signed with the local issuer's key.

    \b
      concord token --kind operator
      concord token --institution bank-a
      concord token --institution bank-a --scope customer.read --ttl 300
      concord token --institution bank-a --kind staff --role approver --subject jane
      curl -H "Authorization: Bearer $(concord token --institution bank-a)" localhost:8080/v1/customers/CUSTOMER
    """
    _check_caller(kind, institution, customer)
    stack = Stack(states.State(states.directory())).load()
    if not stack.state.private_key("issuer").exists():  # before the first start
        stack.write_files()
    caller = tokens.Caller(
        kind,
        client,
        subject or client,
        institution,
        tokens.words(scopes) or tokens.default_scopes(kind),
        tokens.words(roles),
        customer,
    )
    key = tokens.signing_key(stack.state.private_key("issuer"))
    click.echo(tokens.access_token(key, stack.issuer_url, AUDIENCE, caller, ttl))


@main.command("client")
@click.argument("client_id", metavar="CLIENT")
@click.option("--kind", type=click.Choice(CALLER_KINDS), default="channel", show_default=True, help="Who calls.")
@click.option("--institution", help="The institution the client acts for. Needed unless the kind is operator.")
@click.option("--scope", "scopes", multiple=True, help="What it may ask for; may be repeated. Default: all of the kind's.")
def add_client(client_id: str, kind: str, institution: str | None, scopes: tuple[str, ...]) -> None:
    """Register an OAuth client with the local issuer and print its secret, once.

    \b
      concord client mobile-bank --institution bank-a
      curl -u CLIENT:SECRET -d grant_type=client_credentials ISSUER/token
    """
    from concord_local import issuer

    _check_caller(kind, institution)
    stack = Stack(states.State(states.directory())).load()
    granted = tokens.words(scopes) or tokens.default_scopes(kind)
    try:
        secret = issuer.add_client(stack.state, tokens.Caller(kind, client_id, client_id, institution, granted))
    except ValueError as why:
        raise click.ClickException(str(why)) from why
    click.echo(f"client_id      {client_id}\nclient_secret  {secret}\ntoken          {stack.issuer_url}/token")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("service", type=click.Choice(SERVICES))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(service: str, arguments: tuple[str, ...]) -> None:
    """Open psql in a service's database, as the service's own role. What follows goes to psql: concord psql loyalty -c '\\dt'"""
    command, environment = Stack(states.State(states.directory())).load().psql(service)
    os.execve(command[0], [*command, *arguments], environment)


@main.command("dead-letters", context_settings={"ignore_unknown_options": True})
@click.argument("service", type=click.Choice(SERVICES))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="list|replay …")
def dead_letters(service: str, arguments: tuple[str, ...]) -> None:
    """List the events a service could not apply, or apply them again: concord dead-letters rating list"""
    stack = Stack(states.State(states.directory())).load()
    _service_command(stack, service, "dead-letters", *(arguments or ("list",)))


@main.command()
@click.argument("service", type=click.Choice(SERVICES))
@click.option("--resume", is_flag=True, help="Empty nothing; end the service's pause though owners have not said all.")
def rebuild(service: str, resume: bool) -> None:
    """Make a service's projections anew: they are emptied, and the owners publish their state and facts again."""
    stack = Stack(states.State(states.directory())).load()
    if resume:
        _service_command(stack, service, "rebuild", "--resume")
        return
    said = _service_command(stack, service, "rebuild", capture=True).stdout
    runs = [(owner, run_id) for owner, run_id in OWNER_TO_REPUBLISH.findall(said) if owner in SERVICES]
    console.print(f"The projections of {service} are empty.")
    for owner, run_id in runs:
        console.print(f"{owner} publishes its state and facts again for {service} …")
        _service_command(stack, owner, "republish", "--to", service, "--run", run_id)
    console.print(f"{service} folds them now; `concord logs {service}` tells of trouble.")


def _service_command(stack: Stack, service: str, *arguments: str, capture: bool = False) -> "subprocess.CompletedProcess[str]":
    """Runs a command of a service with the environment it has under `concord up`; ends with its exit status when it fails."""
    command = [sys.executable, "-m", service, *arguments]
    output = subprocess.PIPE if capture else None
    done = subprocess.run(
        command, env=stack.environment(service, serves=False), cwd=stack.state.folder, stdout=output, text=True, check=False
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done


def _check_caller(kind: str, institution: str | None, customer: str | None = None) -> None:
    if kind != "operator" and not institution:
        raise click.UsageError(f"a {kind} acts for an institution: add --institution, such as --institution bank-a")
    if institution and not INSTITUTION.fullmatch(institution):
        raise click.UsageError(
            "--institution must be an institution's id: 3 to 40 lower-case letters, digits and hyphens, such as bank-a"
        )
    if customer and (kind != "channel" or not CUSTOMER.fullmatch(customer)):
        raise click.UsageError(
            "--customer must be a customer's id, the part behind customers/, and goes with --kind channel only"
        )
