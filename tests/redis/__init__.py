"""The way to Redis and back, on real servers. See tests/servers for what those can do."""
