"""The one door: HTTP and JSON to gRPC, identity, limits, OpenAPI, composed views."""
