"""Check requests before they reach a service."""
