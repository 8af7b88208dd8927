"""One node of a leaderless, Dynamo-style key-value cluster."""

__version__ = "0.1.0"
