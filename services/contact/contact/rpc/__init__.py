"""Servicers: protobuf to domain and back, nothing else."""
