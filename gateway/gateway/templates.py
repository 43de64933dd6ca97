"""Path templates of google.api.http: their grammar, and which paths two of them share."""

import re
from dataclasses import dataclass

TOKEN = re.compile(r"[{}=/:]|\*\*|\*|[^{}=/:*]+")
FIELD_PATH = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")
LITERAL = re.compile(r"[A-Za-z0-9._~-]+")
ONE, REST = "*", "**"


class TemplateError(ValueError):
    """A template that does not follow the grammar."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A field filled from the path: the segments from `start` up to `end` (None: all that follow)."""

    field_path: tuple[str, ...]
    start: int
    end: int | None

    @property
    def is_single(self) -> bool:
        """Whether it is one segment, which may hold an encoded slash."""
        return self.end == self.start + 1


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: segments (a literal, `*` for one, `**` for all that follow, if any), variables, and the verb."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str

    def shape(self) -> str:
        """The template without the names of its variables: what decides which paths it matches."""
        return "/" + "/".join(self.segments) + (f":{self.verb}" if self.verb else "")


def parse(text: str) -> Template:
    """Parses a template such as `/v1/{name=customers/*}:merge`.

    Raises:
        TemplateError: it is not one.
    """
    tokens = TOKEN.findall(text)
    if "".join(tokens) != text or not text.startswith("/"):
        raise TemplateError(f"{text} is not a path template: it must begin with a slash")
    segments: list[str] = []
    variables: list[Variable] = []
    at = 0
    while at < len(tokens) and tokens[at] == "/":
        at = _segment(text, tokens, at + 1, segments, variables)
    verb = ""
    if at < len(tokens):
        if tokens[at] != ":" or at + 2 != len(tokens) or not LITERAL.fullmatch(tokens[at + 1]):
            raise TemplateError(f"{text}: {''.join(tokens[at:])} is no verb")
        verb = tokens[at + 1]
    if REST in segments[:-1]:
        raise TemplateError(f"{text}: ** must be the last segment")
    return Template(text, tuple(segments), tuple(variables), verb)


def _segment(text: str, tokens: list[str], at: int, segments: list[str], variables: list[Variable]) -> int:
    """Reads one segment or variable that begins at a token; answers where the next one begins."""
    token = tokens[at] if at < len(tokens) else ""
    if token != "{":
        segments.append(_plain(text, token))
        return at + 1
    close = tokens.index("}", at) if "}" in tokens[at:] else len(tokens)
    inside = tokens[at + 1 : close]
    if close == len(tokens) or not inside or not FIELD_PATH.fullmatch(inside[0]):
        raise TemplateError(f"{text}: a variable is written {{field}} or {{field=segments}}")
    start = len(segments)
    pattern = inside[2:] if len(inside) > 1 else [ONE]
    if (
        (len(inside) > 1 and inside[1] != "=")
        or not pattern
        or any(slash != "/" for slash in pattern[1::2])
        or len(pattern) % 2 == 0
    ):
        raise TemplateError(f"{text}: a variable is written {{field}} or {{field=segments}}")
    segments += [_plain(text, part) for part in pattern[::2]]
    end = None if segments[-1] == REST else len(segments)
    variables.append(Variable(tuple(inside[0].split(".")), start, end))
    return close + 1


def _plain(text: str, token: str) -> str:
    if token not in (ONE, REST) and not LITERAL.fullmatch(token):
        raise TemplateError(f"{text}: {token or 'an empty segment'} is neither *, ** nor a name")
    return token


def overlap(one: Template, other: Template) -> bool:
    """Whether a path exists that both match."""
    if one.verb != other.verb:
        return False
    for index in range(max(len(one.segments), len(other.segments)) + 1):
        mine, theirs = _at(one, index), _at(other, index)
        if REST in (mine, theirs):
            return True
        if mine is None or theirs is None:
            return mine is theirs
        if ONE not in (mine, theirs) and mine != theirs:
            return False
    return True


def is_narrower(one: Template, other: Template) -> bool:
    """Whether every path that `one` matches is matched by `other` too, and not the other way round."""
    return one.shape() != other.shape() and _within(one, other)


def _within(one: Template, other: Template) -> bool:
    for index in range(max(len(one.segments), len(other.segments))):
        mine, theirs = _at(one, index), _at(other, index)
        if theirs == REST:
            return True
        if mine is None or theirs is None or mine == REST:
            return False
        if theirs not in (ONE, mine):
            return False
    return one.verb == other.verb


def _at(template: Template, index: int) -> str | None:
    return template.segments[index] if index < len(template.segments) else None
