"""Routes that stand for one RPC: the request transcoded, the call made, the answer transcoded back."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grpc
import orjson

from chassis.identity import METADATA_KEY
from gateway.application import JSON, Answer, Call
from gateway.contracts import Contracts, Rpc
from gateway.identity import Admission
from gateway.json_decoder import Decoders
from gateway.json_encoder import Encoders
from gateway.limits import read_body
from gateway.problems import Problem, from_rpc_error, wrong
from gateway.routes import Route, bindings
from gateway.transcoding import HEADER_OF_FIELD, Transcoder

KEY = re.compile(rb"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
ETAG = re.compile(r'"[0-9A-Za-z_.:+/=-]{1,62}"')


class RpcEndpoint:
    """Serves one HTTP rule of one RPC."""

    def __init__(self, transcoder: Transcoder, channel: grpc.aio.Channel) -> None:
        rpc = transcoder.rpc
        self.admission = Admission(rpc)
        self.transcoder = transcoder
        self._call: Any = unary(channel, rpc)
        self._reads_key = "request_id" in transcoder.header_fields
        self._needs_key = "request_id" in transcoder.headers_needed
        self._reads_etag = "etag" in transcoder.header_fields
        self._needs_etag = "etag" in transcoder.headers_needed
        etag = rpc.descriptor.output_type.fields_by_name.get("etag")
        self._answers_etag = etag is not None and etag.type == etag.TYPE_STRING

    async def __call__(self, call: Call) -> Answer:
        """Serves a call.

        Raises:
            Problem: the request is wrong, or the service refused it.
        """
        headers = call.headers
        fields = self._header_fields(headers) if self._reads_key or self._reads_etag else {}
        if b"if-match" in headers and not self._reads_etag:
            raise wrong("IF_MATCH_INVALID", "If-Match", "is not supported by this method; leave it out")
        body = await read_body(headers, call.receive)
        request = self.transcoder.request(call.segments, call.query, body, fields)
        try:
            response = await self._call(
                request,
                timeout=call.seconds,
                metadata=((METADATA_KEY, call.caller.internal_token), ("traceparent", call.traceparent)),
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, HEADER_OF_FIELD) from None
        content = orjson.dumps(self.transcoder.encode_response(response))
        if not self._answers_etag:
            return Answer(content, [JSON])
        return _with_etag(content, response.etag, headers.get(b"if-none-match"))

    def _header_fields(self, headers: Mapping[bytes, bytes]) -> dict[str, str]:
        fields = {}
        key = headers.get(b"idempotency-key")
        if key is not None and self._reads_key:
            key = key[1:-1] if len(key) > 2 and key[:1] == key[-1:] == b'"' else key
            if not KEY.fullmatch(key):
                raise wrong("IDEMPOTENCY_KEY_INVALID", "Idempotency-Key", "must be 1 to 255 visible ASCII characters")
            fields["request_id"] = key.decode()
        elif self._needs_key:
            raise wrong(
                "IDEMPOTENCY_KEY_MISSING", "Idempotency-Key", "is needed: a new id for each intent, the same for its retries"
            )
        etag = headers.get(b"if-match")
        if etag is not None and self._reads_etag:
            fields |= _etag_field(etag.decode("latin-1"), self._needs_etag)
        elif self._needs_etag:
            wanted = "is needed: the ETag that was read, because only what was seen is changed"
            raise Problem(428, "IF_MATCH_MISSING", f"If-Match: {wanted}", [("If-Match", wanted)])
        return fields


def _etag_field(header: str, is_needed: bool) -> dict[str, str]:
    if header == "*" and not is_needed:
        return {}  # any version: what a request without an etag says
    quoted = header if header.startswith('"') else f'"{header}"'  # many write it without the quotes
    if ETAG.fullmatch(quoted):
        return {"etag": quoted}  # the contracts' etags have their quotes (AIP-154)
    raise wrong("IF_MATCH_INVALID", "If-Match", 'must be one entity tag as an ETag header had it, such as "abc"')


def _with_etag(content: bytes, etag: str, if_none_match: bytes | None) -> Answer:
    if not ETAG.fullmatch(etag):
        return Answer(content, [JSON])
    tag = etag.encode()
    if if_none_match is not None and tag in [one.strip().removeprefix(b"W/") for one in if_none_match.split(b",")]:
        return Answer(b"", [(b"etag", tag)], 304)
    return Answer(content, [JSON, (b"etag", tag)])


def unary(channel: grpc.aio.Channel, rpc: Rpc) -> Any:
    """The call of an RPC."""
    return channel.unary_unary(
        rpc.path,
        request_serializer=rpc.request_class.SerializeToString,
        response_deserializer=rpc.response_class.FromString,
    )


def transcoders(contracts: Contracts) -> Iterator[Transcoder]:
    """All HTTP rules of all RPCs, worked out.

    Raises:
        ContractError: a rule that cannot be served.
    """
    encoders, decoders = Encoders(contracts.pool), Decoders(contracts.pool)
    for rpc in contracts.rpcs:
        for binding in bindings(rpc):
            yield Transcoder(rpc, binding, encoders, decoders)


def routes(worked_out: Iterable[Transcoder], channels: Mapping[str, grpc.aio.Channel]) -> Iterator[Route]:
    """The routes of RPCs. `channels` has one for each owner (`customer`)."""
    for transcoder in worked_out:
        binding = transcoder.binding
        endpoint = RpcEndpoint(transcoder, channels[transcoder.rpc.owner])
        yield Route(binding.method, binding.template, transcoder.rpc.name, endpoint)
