"""The stewards' queues."""
