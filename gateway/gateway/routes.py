"""From an HTTP method and a path to what serves it. Ambiguous routes are refused when the table is made."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.api import http_pb2

from gateway import templates
from gateway.contracts import ContractError, Rpc
from gateway.templates import ONE, REST, Template, TemplateError

METHODS = ("get", "post", "patch", "put", "delete")


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What serves one HTTP method on one template. `endpoint` belongs to the application."""

    method: str
    template: Template
    name: str
    endpoint: Any


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP rule of an RPC."""

    method: str
    template: Template
    body: str
    response_body: str


def bindings(rpc: Rpc) -> Iterator[Binding]:
    """The HTTP rule of an RPC and its additional bindings.

    Raises:
        ContractError: a rule that cannot be served.
    """
    for rule in (rpc.http, *rpc.http.additional_bindings):
        yield _binding(rpc, rule)


def _binding(rpc: Rpc, rule: http_pb2.HttpRule) -> Binding:
    method = rule.WhichOneof("pattern")
    if method not in METHODS:
        raise ContractError(f"{rpc.path}: its google.api.http has {method or 'no method'}; {', '.join(METHODS)} are served")
    try:
        template = templates.parse(getattr(rule, method))
    except TemplateError as error:
        raise ContractError(f"{rpc.path}: {error}") from None
    if method in ("get", "delete") and rule.body:
        raise ContractError(f"{rpc.path}: {method.upper()} takes no body")
    if any(inner.additional_bindings for inner in rule.additional_bindings):
        raise ContractError(f"{rpc.path}: additional_bindings must not be nested")
    return Binding(method.upper(), template, rule.body, rule.response_body)


@dataclass(slots=True)
class _Node:
    """A place in the tree of segments. `ends` has, by verb, the routes that end here; `rest` leads to those ending in `**`."""

    literals: dict[str, "_Node"] = field(default_factory=dict)
    one: "_Node | None" = None
    rest: "_Node | None" = None
    ends: dict[str, dict[str, Route]] = field(default_factory=dict)


class RouteTable:
    """All routes. Where two templates match a path, the narrower one wins; where neither is narrower, there is no table.

    Raises:
        ContractError: two routes are ambiguous.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        self._verbs = {route.template.verb for route in self.routes}
        _refuse_ambiguous(self.routes)
        for route in self.routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.template.segments:
            if segment == REST:
                node.rest = node = node.rest or _Node()
            elif segment == ONE:
                node.one = node = node.one or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
        node.ends.setdefault(route.template.verb, {})[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route | None, list[str], tuple[str, ...]]:
        """What serves a path as it was sent, still percent-encoded.

        Returns:
            The route, the path's segments without the verb, and, where the route is None, the methods that the path has.
        """
        segments = path.split("/")
        last, colon, verb = segments[-1].rpartition(":")
        if colon:
            segments[-1] = last
        found: list[dict[str, Route]] = []
        _search(self._root, segments, 1, verb if colon else "", found)
        for by_method in found:
            route = by_method.get(method)
            if route is not None:
                return route, segments[1:], ()
        return None, segments[1:], tuple(sorted({name for by_method in found for name in by_method}))


def _search(node: _Node, segments: list[str], at: int, verb: str, found: list[dict[str, Route]]) -> None:
    """Collects what matches, narrower templates first."""
    if at == len(segments):
        end = node.ends.get(verb)
        if end is not None:
            found.append(end)
        if node.rest is not None and verb in node.rest.ends:
            found.append(node.rest.ends[verb])  # ** is zero or more segments
        return
    segment = segments[at]
    if not segment:
        return
    following = node.literals.get(segment)
    if following is not None:
        _search(following, segments, at + 1, verb, found)
    if node.one is not None:
        _search(node.one, segments, at + 1, verb, found)
    if node.rest is not None and all(segments[at:]):
        end = node.rest.ends.get(verb)
        if end is not None:
            found.append(end)


def _refuse_ambiguous(routes: tuple[Route, ...]) -> None:
    for index, one in enumerate(routes):
        for other in routes[index + 1 :]:
            if one.method != other.method or not templates.overlap(one.template, other.template):
                continue
            if templates.is_narrower(one.template, other.template) or templates.is_narrower(other.template, one.template):
                continue
            raise ContractError(
                f"{one.method} {one.template.text} of {one.name} and {other.template.text} of {other.name} are ambiguous: "
                "a path may match both"
            )
