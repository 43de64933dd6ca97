"""ControlService."""

import grpc

from chassis.database import Database
from concord.loyalty.v1 import ledger_service_pb2 as pb
from concord.loyalty.v1.ledger_service_pb2_grpc import ControlServiceServicer
from loyalty.store import invariants

Context = grpc.aio.ServicerContext[object, object]


class ControlServicer(ControlServiceServicer):
    """Checks the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def VerifyInvariants(self, request: pb.VerifyInvariantsRequest, context: Context) -> pb.VerifyInvariantsResponse:
        report = await invariants.verify(self._database)
        return pb.VerifyInvariantsResponse(
            valid=report.valid,
            results=[
                pb.InvariantResult(
                    invariant=finding.invariant.name,
                    description=finding.invariant.description,
                    violations_count=finding.violations_count,
                    examples=finding.examples,
                )
                for finding in report.findings
            ],
            operations_count=report.operations_count,
            entries_count=report.entries_count,
        )
