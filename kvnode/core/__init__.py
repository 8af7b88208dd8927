"""The pure core: state machines with no clock, socket, file, thread or global randomness."""
