"""What crosses the wire: types, messages, codec, and the ring as a value."""
