from chassis.command_line import main
from echo_service.service import SERVICE

main(SERVICE)
