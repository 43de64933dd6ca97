"""ExchangeService: agreements, rates and quotes."""

from chassis.database import Database
from chassis.unit_of_work import Commands
from concord.loyalty.v1.exchange_service_pb2_grpc import ExchangeServiceServicer
from loyalty.rpc.agreements import AgreementMethods
from loyalty.rpc.quotes import QuoteMethods
from loyalty.rpc.rates import RateMethods
from loyalty.store.configuration import Configurations


class ExchangeServicer(AgreementMethods, RateMethods, QuoteMethods, ExchangeServiceServicer):
    """Keeps what institutions agree on, and says what points would pay."""

    def __init__(self, database: Database, commands: Commands, configurations: Configurations) -> None:
        self._database = database
        self._commands = commands
        self._configurations = configurations
