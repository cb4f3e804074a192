"""The load generator: requests of each protocol, closed and open loops, and a server that does nothing."""
