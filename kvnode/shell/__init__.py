"""The real world: poll loop, ZeroMQ transport, storage engines, telemetry."""
