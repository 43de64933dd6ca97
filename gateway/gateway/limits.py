"""Limits of the gateway: sizes, time, concurrency, and requests a second for each caller."""

import asyncio
import math
import re
import time
from collections import OrderedDict
from typing import Any

from gateway.problems import Problem, wrong

BODY_BYTES_MAX = 1 << 20
BODY_SECONDS_MAX = 30.0
ADDRESS_BYTES_MAX = 8 << 10
HEAD_BYTES_MAX = 32 << 10
HEAD_SECONDS_MAX = 10.0
HEADERS_MAX = 100
BUCKETS_MAX = 10_000
DEADLINE_SECONDS_DEFAULT = 10.0
DEADLINE_SECONDS_MIN, DEADLINE_SECONDS_MAX = 1.0, 60.0
SECONDS = re.compile(r"([1-9]|[1-5][0-9])(\.[0-9]{1,3})?|60")
JSON_TYPE = re.compile(rb"application/json(\s*;\s*charset=\"?utf-8\"?)?\s*", re.IGNORECASE)


def deadline_seconds(header: bytes | None) -> float:
    """How long a request may take: 10 s, or what its Request-Timeout header says, 1 to 60.

    Raises:
        Problem: 400 REQUEST_TIMEOUT_INVALID.
    """
    if header is None:
        return DEADLINE_SECONDS_DEFAULT
    text = header.decode("latin-1")
    seconds = float(text) if SECONDS.fullmatch(text) else 0.0
    if not DEADLINE_SECONDS_MIN <= seconds <= DEADLINE_SECONDS_MAX:
        raise wrong("REQUEST_TIMEOUT_INVALID", "Request-Timeout", "must be seconds, 1 to 60")
    return seconds


def body_too_large() -> Problem:
    """A 413; the connection ends, because the rest of the body is not read."""
    detail = f"a body may have {BODY_BYTES_MAX} bytes; divide the request"
    return Problem(413, "BODY_TOO_LARGE", detail, headers=[(b"connection", b"close")])


async def read_body(headers: dict[bytes, bytes], receive: Any) -> bytes:
    """The body of a request.

    Raises:
        Problem: 413 when it is too large, 408 when it is too slow, 415 when it is not JSON, 400 when the caller left.
    """
    length = headers.get(b"content-length")
    if length is not None and int(length) > BODY_BYTES_MAX:
        raise body_too_large()
    if length is None and b"transfer-encoding" not in headers:
        return b""
    if b"content-encoding" in headers:
        raise Problem(415, "CONTENT_ENCODING_NOT_SUPPORTED", "the body must be sent as it is, without Content-Encoding")
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            body = await _collected(receive)
    except TimeoutError:
        close = [(b"connection", b"close")]
        detail = f"a body must arrive within {BODY_SECONDS_MAX:g} seconds"
        raise Problem(408, "BODY_TOO_SLOW", detail, headers=close) from None
    if body and not JSON_TYPE.fullmatch(headers.get(b"content-type", b"")):
        raise Problem(415, "CONTENT_TYPE_NOT_SUPPORTED", "the Content-Type must be application/json")
    return body


async def _collected(receive: Any) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "CALLER_LEFT", "the connection ended before the body did")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise body_too_large()
        if not message.get("more_body"):
            return body


class RateLimit:
    """A token bucket for each caller: `rate` requests a second on the long run, `burst` at once.

    It is kept in this process: with several gateways give each its share.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()
        window = max(1, math.ceil(burst / rate))
        self.policy = f'"caller";q={burst};w={window}'.encode()

    def take(self, caller: str) -> int:
        """Takes one token.

        Returns:
            How many are left.

        Raises:
            Problem: 429, with Retry-After, when there is none.
        """
        now = time.monotonic()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = [float(self.burst), now]
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        left = min(self.burst, bucket[0] + (now - bucket[1]) * self.rate)
        bucket[1] = now
        if left < 1:
            bucket[0] = left
            raise self._refusal(left)
        bucket[0] = left - 1
        return int(left - 1)

    def headers(self, left: int) -> list[tuple[bytes, bytes]]:
        """RateLimit and RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers-10."""
        seconds = math.ceil((self.burst - left) / self.rate)
        return [(b"ratelimit-policy", self.policy), (b"ratelimit", b'"caller";r=%d;t=%d' % (left, seconds))]

    def _refusal(self, left: float) -> Problem:
        seconds = max(1, math.ceil((1 - left) / self.rate))
        detail = f"this client may send {self.rate:g} requests a second"
        return Problem(429, "RATE_LIMITED", detail, headers=self.headers(0), retry_seconds=seconds)
