"""The streaming core in C99, and what builds and loads it for Python."""
