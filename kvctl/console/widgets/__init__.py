"""What screens are made of: each shows one frozen value, and posts what the user means by a key or a click."""
